"""``msclr::temporal_conv`` and its gradient: declarations; the code is csrc/temporal_conv/cpu.cpp.

ST-GCN's temporal convolution over packed rows, together with what is before and after it. Rows are
those of one or several joint layouts, one segment after the other; in a segment they are in the
order of (N, T, V), and ``segments`` lists N, T, V of each. Nine taps, padding 4, stride 1 or 2.

``temporal_conv``::

    a = relu(x * scale + shift)    scale and shift (C_in): a batch norm with its statistics known
    y[n, t', v, o] = bias[o] + sum_k,c weight[o, c, k] * a[n, stride * t' + k - 4, v, c]
    statistics = [sum y, sum y * y] over all rows  (2, C_out)

``temporal_conv_backward`` is given d, the gradient at the output of the batch norm that follows,
as rows (R', C_out), and coefficients (3, C_out), which make it the gradient of y::

    g = coefficients[0] * d + coefficients[1] * y + coefficients[2]
    e = (transposed convolution of g) where x * scale + shift > 0  (R, C_in)
    statistics = [sum e, sum e * x] over all rows  (2, C_in)
    dweight (C_out, C_in, 9), dbias = sum g  (C_out,)

Of the batch norm in front, e, sum e and sum e * x are all that its gradients need. x, y, d and e
have one dtype, computed in float32 where it is shorter; statistics are float64. Neither operator
has autograd of its own: a block of ST-GCN calls both.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from msclr.kernels._operator import define
from msclr.kernels._segments import rows_in


def _forward(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    weight: Tensor,
    bias: Tensor,
    segments: Sequence[int],
    stride: int,
) -> tuple[Tensor, Tensor]:
    y = x.new_empty(rows_in(segments, stride), weight.shape[0])
    return y, x.new_empty((2, weight.shape[0]), dtype=torch.float64)


def _backward(
    d: Tensor,
    y: Tensor,
    coefficients: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    weight: Tensor,
    segments: Sequence[int],
    stride: int,
    want_x: bool,
    want_weight: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    c_out, c_in, _ = weight.shape
    return (
        x.new_empty(x.shape if want_x else (0, 0)),
        x.new_empty((2, c_in) if want_x else (0, 0), dtype=torch.float64),
        weight.new_empty(weight.shape if want_weight else (0, 0, 0)),
        weight.new_empty((c_out,) if want_weight else (0,)),
    )


define(
    "temporal_conv",
    "(Tensor x, Tensor scale, Tensor shift, Tensor weight, Tensor bias, int[] segments, "
    "int stride) -> (Tensor, Tensor)",
    fake=_forward,
)
define(
    "temporal_conv_backward",
    "(Tensor d, Tensor y, Tensor coefficients, Tensor x, Tensor scale, Tensor shift, "
    "Tensor weight, int[] segments, int stride, bool want_x, bool want_weight) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    fake=_backward,
)
