"""Argument checks of stgcn_block, shared by every backend; a GPU is never waited for."""

from __future__ import annotations

import torch

from msclr.kernels._arguments import want, want_one_device
from msclr.kernels._segments import check_counts, rows_in, triples
from msclr.kernels.block.operator import Arguments

TAPS = 9


def check_arguments(a: Arguments) -> None:
    """Raise ValueError naming the first argument that does not fit the others."""
    floating = a.x.dim() == 2 and a.x.is_floating_point()
    want(floating, "x", a.x, "rows (R, C_in) of a floating point dtype")
    rows, c_in = a.x.shape
    if len(a.segments) % 3 or any(k < 0 for k in a.segments) or rows_in(a.segments) != rows:
        raise ValueError(f"segments must be N, T, V of {rows} rows in all, got {a.segments}")
    if a.counts is not None:
        check_counts(a.counts, a.segments)
    if a.stride not in (1, 2):
        raise ValueError(f"stride must be 1 or 2, got {a.stride}")
    if not 0 <= a.dropout < 1:
        raise ValueError(f"dropout must lie in 0..1, 1 excluded, got {a.dropout}")
    c_out = a.time_weight.shape[0]
    want(a.time_weight.shape == (c_out, c_out, TAPS), "time_weight", a.time_weight, "(C, C, 9)")
    want(a.time_bias.shape == (c_out,), "time_bias", a.time_bias, f"({c_out},)")
    k = a.partitions
    want(a.graph_weight.shape == (k * c_out, c_in), "graph_weight", a.graph_weight,
         f"(K*C_out, C_in) = ({k * c_out}, {c_in})")  # fmt: skip
    if a.graph_bias is not None:
        want(a.graph_bias.shape == (k * c_out,), "graph_bias", a.graph_bias, f"({k * c_out},)")
    entries = k * sum(v * v for _, _, v in triples(a.segments))
    want(a.adjacency.shape == (entries,), "adjacency", a.adjacency, f"({entries},)")
    want(a.support.shape == (entries,) and a.support.dtype == torch.bool, "support", a.support,
         f"bool ({entries},)")  # fmt: skip
    count = 4
    if a.residual_weight is not None:
        count = 6
        want(a.residual_weight.shape == (c_out, c_in), "residual_weight", a.residual_weight,
             f"({c_out}, {c_in})")  # fmt: skip
    elif a.residual and (c_in != c_out or a.stride != 1):
        raise ValueError(
            f"residual must be False or have a weight where {c_in} channels become {c_out} "
            f"with stride {a.stride}, got an identity"
        )
    for name, tensor in (("norms", a.norms), ("running", a.running)):
        want(tensor.shape == (count, c_out), name, tensor, f"({count}, {c_out})")
    tensors = {n: t for n, t in a._asdict().items() if torch.is_tensor(t) and n != "seed"}
    want_one_device(**tensors)
    if a.training and not a.group and min(rows, rows_in(a.segments, a.stride)) == 1:
        raise ValueError("Expected more than 1 value per channel when training, got one row")
