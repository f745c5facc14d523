"""The operators and their fake tensors; inputs are data, so there are no gradients.

``msclr::augment`` is compiled (csrc/: its schema, and code for CPU tensors);
``msclr::augment_triton`` is the same operator in Triton, and needs no compiler.
"""

from __future__ import annotations

import torch
from torch import Tensor

from msclr.kernels._backend import has_triton, load_library
from msclr.kernels._triton_op import define_triton
from msclr.kernels.augment.check import STREAMS, VIEWS

COMPILED = "augment"
TRITON = "augment_triton"
BACKENDS = {"cpu": COMPILED} if load_library() else {}  # backend -> operator, if callable here
if has_triton():
    BACKENDS["triton"] = TRITON

# As in csrc/library.cpp.
_SCHEMA = (
    "(Tensor clips, Tensor index, Tensor numbers, Tensor epochs, int seed, int purpose, int view, "
    "Tensor? flip, int stream, Tensor? parents, bool planar, ScalarType dtype) -> Tensor"
)


def augment(
    name: str,
    clips: Tensor,
    index: Tensor,
    numbers: Tensor,
    epochs: Tensor,
    seed: int,
    purpose: int,
    view: str,
    flip: Tensor | None,
    stream: str,
    parents: Tensor | None,
    planar: bool,
    dtype: torch.dtype,
) -> Tensor:
    """``torch.ops.msclr.<name>``, (B, M, T, V, 3); see :func:`msclr.kernels.augment`."""
    run = getattr(torch.ops.msclr, name)
    seed = (seed + 2**63) % 2**64 - 2**63  # the same 64 bits as an int64
    which = VIEWS.index(view), flip, STREAMS.index(stream), parents
    return run(clips, index, numbers, epochs, seed, purpose, *which, planar, dtype)


def _fake(clips, index, numbers, epochs, seed, purpose, view, flip, stream, parents, planar, dtype):
    return clips.new_empty((index.shape[0], *clips.shape[1:]), dtype=dtype)


if "triton" in BACKENDS:
    define_triton(TRITON, _SCHEMA, "msclr.kernels.augment.triton_kernel", "augment")
for _name in set(BACKENDS.values()):
    torch.library.register_fake(f"msclr::{_name}", _fake)
