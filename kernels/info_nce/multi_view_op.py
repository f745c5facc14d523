"""The operator of multi-view InfoNCE: fake tensors and autograd.

``msclr::multi_view_info_nce`` is compiled (csrc/: its schema, and code for CPU tensors);
``msclr::multi_view_info_nce_triton`` is the same operator in Triton, and needs no compiler.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from msclr.kernels._backend import has_triton, load_library
from msclr.kernels._triton_op import define_triton

COMPILED = "multi_view_info_nce"
TRITON = "multi_view_info_nce_triton"
BACKENDS = {"cpu": COMPILED} if load_library() else {}  # backend -> operator, if callable here
if has_triton():
    BACKENDS["triton"] = TRITON

# As in csrc/library.cpp.
_SCHEMA = (
    "(Tensor views, Tensor temperature, int[] pairs, Tensor? candidates, int first, Tensor? bank, "
    "bool all_views) -> (Tensor, Tensor, Tensor)"
)
_BACKWARD_SCHEMA = (
    "(Tensor grad, Tensor views, Tensor temperature, int[] pairs, Tensor? candidates, int first, "
    "Tensor? bank, bool all_views, Tensor negatives, Tensor positives, bool want_views, "
    "bool want_temperature, bool want_candidates, bool want_bank) "
    "-> (Tensor, Tensor, Tensor, Tensor)"
)


def multi_view_info_nce(
    name: str,
    views: Tensor,
    temperature: float | Tensor,
    bank: Tensor | None,
    pairs: Sequence[tuple[int, int]],
    negatives: str,
    candidates: Tensor | None,
    first: int,
) -> Tensor:
    """``torch.ops.msclr.<name>``; see :func:`msclr.kernels.multi_view_info_nce`."""
    if not torch.is_tensor(temperature):
        temperature = torch.tensor(temperature, dtype=torch.float64)
    run = getattr(torch.ops.msclr, name)
    flat = [view for pair in pairs for view in pair]
    loss, *_ = run(views, temperature, flat, candidates, first, bank, negatives == "batch")
    return loss


def _fake(views, temperature, pairs, candidates, first, bank, all_views):
    count, batch, _ = views.shape
    dtype = torch.float64 if views.dtype == torch.float64 else torch.float32
    shapes = (), (count, count, batch), (count, count, batch)
    return tuple(views.new_empty(shape, dtype=dtype) for shape in shapes)


def _fake_backward(
    grad, views, temperature, pairs, candidates, first, bank, all_views, negatives, positives,
    *wanted: bool,
):  # fmt: skip
    inputs = views, temperature, candidates, bank
    return tuple(
        x.new_empty(x.shape) if want and x is not None else views.new_empty(0)
        for x, want in zip(inputs, wanted, strict=True)
    )


def _save(ctx, inputs, output) -> None:
    views, temperature, ctx.pairs, candidates, ctx.first, bank, ctx.all_views = inputs
    _, negatives, positives = output
    ctx.mark_non_differentiable(negatives, positives)
    ctx.save_for_backward(views, temperature, candidates, bank, negatives, positives)


def _differentiable(name: str) -> None:
    backward = getattr(torch.ops.msclr, f"{name}_backward")

    def gradients(ctx, grad, *_):
        views, temperature, candidates, bank, *saved = ctx.saved_tensors
        want_views, want_temperature, _, want_candidates, _, want_bank, _ = ctx.needs_input_grad
        wanted = want_views, want_temperature, want_candidates, want_bank
        found = backward(
            grad, views, temperature, ctx.pairs, candidates, ctx.first, bank, ctx.all_views,
            *saved, *wanted,
        )  # fmt: skip
        of_views, of_temperature, of_candidates, of_bank = (
            g if want else None for g, want in zip(found, wanted, strict=True)
        )
        return of_views, of_temperature, None, of_candidates, None, of_bank, None

    torch.library.register_fake(f"msclr::{name}", _fake)
    torch.library.register_fake(f"msclr::{name}_backward", _fake_backward)
    torch.library.register_autograd(f"msclr::{name}", gradients, setup_context=_save)


if "triton" in BACKENDS:
    _KERNEL = "msclr.kernels.info_nce.multi_view_triton"
    define_triton(TRITON, _SCHEMA, _KERNEL, "forward")
    define_triton(f"{TRITON}_backward", _BACKWARD_SCHEMA, _KERNEL, "backward")
for _name in set(BACKENDS.values()):
    _differentiable(_name)
