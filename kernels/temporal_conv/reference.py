"""The temporal convolution in plain PyTorch: the formula, and the oracle of the compiled code."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from msclr.kernels._segments import triples

TAPS = 9


def temporal_conv(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    weight: Tensor,
    bias: Tensor,
    segments: Sequence[int],
    stride: int,
) -> tuple[Tensor, Tensor]:
    """See ``kernels/temporal_conv/operator.py``."""
    y = convolve(torch.relu(x * scale + shift), weight, segments, stride) + bias
    return y, sums(y, y)


def temporal_conv_backward(
    d: Tensor,
    y: Tensor,
    coefficients: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    weight: Tensor,
    segments: Sequence[int],
    stride: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``kernels/temporal_conv/operator.py``."""
    g = coefficients[0] * d + coefficients[1] * y + coefficients[2]
    with torch.enable_grad():
        z = (x * scale + shift).detach().requires_grad_()
        w = weight.detach().requires_grad_()
        e, dweight = torch.autograd.grad(convolve(torch.relu(z), w, segments, stride), (z, w), g)
    return e, sums(e, x), dweight, g.sum(dim=0)


def convolve(a: Tensor, weight: Tensor, segments: Sequence[int], stride: int) -> Tensor:
    """The convolution alone, of rows (R, C_in) to rows (R', C_out)."""
    first, out = 0, [a[:0] @ weight[..., 0].T]  # no rows, but a result of both
    for n, t, v in triples(segments):
        rows = a[first : first + n * t * v]
        first += n * t * v
        clips = rows.view(n, t, v, a.shape[1]).permute(0, 3, 1, 2)  # (N, C_in, T, V)
        if n * t * v:
            y = F.conv2d(clips, weight[..., None], stride=(stride, 1), padding=(TAPS // 2, 0))
            out.append(y.permute(0, 2, 3, 1).reshape(-1, y.shape[1]))
    return torch.cat(out)


def sums(a: Tensor, b: Tensor) -> Tensor:
    """The sum of a and of a * b over the rows, in float64: (2, C)."""
    a, b = a.double(), b.double()
    return torch.stack([a.sum(dim=0), (a * b).sum(dim=0)])
