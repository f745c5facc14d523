"""The operators: fake tensors and autograd.

``msclr::info_nce`` is compiled (csrc/: its schema, and code for CPU tensors);
``msclr::info_nce_triton`` is the same operator in Triton, and needs no compiler.
"""

from __future__ import annotations

import torch
from torch import Tensor

from msclr.kernels._backend import has_triton, load_library
from msclr.kernels._triton_op import define_triton
from msclr.kernels.info_nce.reference import InfoNCEOutput

COMPILED = "info_nce"
TRITON = "info_nce_triton"
BACKENDS = {"cpu": COMPILED} if load_library() else {}  # backend -> operator, if callable here
if has_triton():
    BACKENDS["triton"] = TRITON

# As in csrc/library.cpp.
_SCHEMA = (
    "(Tensor queries, Tensor keys, Tensor? bank, Tensor temperature, int? teacher=None, "
    "int top_k=0, Tensor? positives=None, bool mined=False) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_BACKWARD_SCHEMA = (
    "(Tensor grad_loss, Tensor grad_distribution, Tensor grad_log_sum_exp, Tensor queries, "
    "Tensor keys, Tensor? bank, Tensor temperature, int? teacher, Tensor? positives, "
    "Tensor? mined, Tensor log_sum_exp, Tensor mean, Tensor positive, bool want_queries, "
    "bool want_keys, bool want_bank, bool want_temperature) -> (Tensor, Tensor, Tensor, Tensor)"
)


def info_nce(
    name: str,
    queries: Tensor,
    keys: Tensor,
    bank: Tensor | None,
    temperature: float | Tensor,
    teacher: int | None,
    top_k: int,
    positives: Tensor | str | None,
) -> InfoNCEOutput:
    """``torch.ops.msclr.<name>``; see :func:`msclr.kernels.info_nce`."""
    if not torch.is_tensor(temperature):
        temperature = torch.tensor(temperature, dtype=torch.float64)
    mined = isinstance(positives, str)
    run = getattr(torch.ops.msclr, name)
    loss, distribution, log_sum_exp, nearest, *_ = run(
        queries, keys, bank, temperature, teacher, top_k, None if mined else positives, mined
    )
    return InfoNCEOutput(
        loss,
        distribution if teacher is not None else None,
        log_sum_exp,
        nearest if top_k else None,
    )


def _fake(queries, keys, bank, temperature, teacher=None, top_k=0, positives=None, mined=False):
    views, batch, dim = queries.shape
    dtype = torch.float64 if queries.dtype == torch.float64 else torch.float32

    def empty(*shape):
        return queries.new_empty(shape, dtype=dtype)

    return (
        empty(views, batch),
        empty(views, batch) if teacher is not None else empty(0),
        empty(views, batch),
        queries.new_empty((views, batch, top_k), dtype=torch.int64),
        empty(views, batch, dim),
        empty(batch, dim),
    )


def _fake_backward(
    grad_loss, grad_distribution, grad_log_sum_exp, queries, keys, bank, temperature, teacher,
    positives, mined, log_sum_exp, mean, positive, *wanted: bool
):  # fmt: skip
    inputs = queries, keys, bank, temperature
    return tuple(
        x.new_empty(x.shape) if want and x is not None else queries.new_empty(0)
        for x, want in zip(inputs, wanted, strict=True)
    )


def _save(ctx, inputs, output) -> None:
    """The bank is kept only for a gradient that reads it: else it may change before backward."""
    queries, keys, bank, temperature, teacher, _, positives, mined = inputs
    _, _, log_sum_exp, nearest, mean, positive = output
    _, want_keys, want_bank, *_ = ctx.needs_input_grad
    ctx.mark_non_differentiable(nearest, mean, positive)
    ctx.teacher = teacher
    ctx.save_for_backward(
        queries,
        keys,
        bank if want_keys or want_bank else None,
        temperature,
        positives,
        nearest if mined else None,
        log_sum_exp,
        mean,
        positive,
    )


def _differentiable(name: str) -> None:
    backward = getattr(torch.ops.msclr, f"{name}_backward")

    def gradients(ctx, *grads):
        queries, keys, bank, temperature, *rest = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:4]
        found = backward(*grads[:3], queries, keys, bank, temperature, ctx.teacher, *rest, *wanted)
        return (*(g if want else None for g, want in zip(found, wanted, strict=True)), *[None] * 4)

    torch.library.register_fake(f"msclr::{name}", _fake)
    torch.library.register_fake(f"msclr::{name}_backward", _fake_backward)
    torch.library.register_autograd(f"msclr::{name}", gradients, setup_context=_save)


if "triton" in BACKENDS:
    _KERNEL = "msclr.kernels.info_nce.triton_kernel"
    define_triton(TRITON, _SCHEMA, _KERNEL, "forward")
    define_triton(f"{TRITON}_backward", _BACKWARD_SCHEMA, _KERNEL, "backward")
for _name in set(BACKENDS.values()):
    _differentiable(_name)
