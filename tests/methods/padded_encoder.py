"""The encoder of padded_aimclr: plain float64 PyTorch over zero-padded tracks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

State = dict[str, Tensor]

NORM_EPSILON = 1e-5
NORM_MOMENTUM = 0.1
TEMPORAL_TAPS = 9


@dataclass
class Encoder:
    """Parameters, running statistics (replaced key by key in training mode) and fixed facts."""

    state: State
    running: State
    adjacency: dict[str, Tensor]  # layout -> (K, J, J), every layout the encoder knows
    strides: Sequence[int]  # one per block
    train: bool

    @property
    def padded_joints(self) -> int:
        return max(a.shape[-1] for a in self.adjacency.values())


def feature_maps(encoder: Encoder, clips: list[Tensor], layouts: list[str]) -> list[Tensor]:
    """The last block's output of every track, cut to its real joints: N of (D, T', J)."""
    tracks, track_layouts = [], []
    for clip, layout in zip(clips, layouts, strict=True):
        for body in range(clip.shape[-1]):
            tracks.append(clip[..., body].double())  # (3, T, J)
            track_layouts.append(layout)

    tracks = input_norm(encoder, tracks, track_layouts)
    missing = [encoder.padded_joints - track.shape[-1] for track in tracks]
    x = torch.stack([pad(t, (0, m)) for t, m in zip(tracks, missing, strict=True)])  # (N, 3, T, V)
    for index in range(len(encoder.strides)):
        x = block(encoder, index, x, track_adjacency(encoder, index, track_layouts))
    return [x[n, :, :, : track.shape[-1]] for n, track in enumerate(tracks)]


def input_norm(encoder: Encoder, tracks: list[Tensor], layouts: list[str]) -> list[Tensor]:
    """Batch norm over the J*C coordinates of each layout apart, statistics over its tracks and T.

    Feature v*C + c is coordinate c of joint v.
    """
    normed = list(tracks)
    for layout in set(layouts):
        members = [n for n, name in enumerate(layouts) if name == layout]
        x = torch.stack([tracks[n] for n in members])  # (n, C, T, J)
        n, c, t, j = x.shape
        x = x.permute(0, 3, 1, 2).reshape(n, j * c, t)  # (n, J*C, T)
        x = batch_norm(encoder, f"input_norm.{layout}", x)
        x = x.reshape(n, j, c, t).permute(0, 2, 3, 1)  # (n, C, T, J)
        for row, member in enumerate(members):
            normed[member] = x[row]
    return normed


def track_adjacency(encoder: Encoder, index: int, layouts: list[str]) -> Tensor:
    """Graph times edge importance of block `index`, padded, for every track: (N, K, V, V)."""
    padded = []
    for layout in layouts:
        fixed = encoder.adjacency[layout].double()  # (K, J, J)
        missing = encoder.padded_joints - fixed.shape[-1]
        weighted = fixed * encoder.state[f"edge_importance.{layout}.{index}"]
        padded.append(pad(weighted, (0, missing, 0, missing)))
    return torch.stack(padded)


def block(encoder: Encoder, index: int, x: Tensor, adjacency: Tensor) -> Tensor:
    """relu( BN(tconv(relu(BN(gconv(x))))) + residual(x) ): (N, C, T, V) -> (N, C', T', V)."""
    state, name, stride = encoder.state, f"blocks.{index}", encoder.strides[index]
    weight, bias = state[f"{name}.gcn.conv.weight"], state[f"{name}.gcn.conv.bias"]
    y = graph_conv(x, weight, bias, adjacency)
    y = batch_norm(encoder, f"{name}.gcn_norm", y).relu()
    y = temporal_conv(y, state[f"{name}.tcn.weight"], state[f"{name}.tcn.bias"], stride)
    y = batch_norm(encoder, f"{name}.tcn_norm", y)
    if index > 0:
        y = y + residual(encoder, index, x, out_channels=y.shape[1])
    return y.relu()


def graph_conv(x: Tensor, weight: Tensor, bias: Tensor, adjacency: Tensor) -> Tensor:
    """y[n,o,t,w] = sum_k sum_v ( sum_c W[k,o,c] x[n,c,t,v] + b[k,o] ) A[n,k,v,w].

    Padded rows and columns of A are zero: padded joints are never mixed in and come out as 0.
    """
    partitions = adjacency.shape[1]
    w = weight.reshape(partitions, -1, x.shape[1])  # (K, C', C)
    b = bias.reshape(partitions, -1)  # (K, C')
    h = torch.einsum("koc,nctv->nkotv", w, x) + b[None, :, :, None, None]
    return torch.einsum("nkotv,nkvw->notw", h, adjacency)


def temporal_conv(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Convolution over T alone, as many taps as the weight (C', C, taps, 1) has, centred."""
    taps = weight.shape[2]
    frames_out = (x.shape[2] - 1) // stride + 1
    x = pad(x, (0, 0, taps // 2, taps // 2))  # (N, C, T + taps - 1, V)
    y = bias[None, :, None, None]
    for tap in range(taps):
        frames = torch.arange(frames_out) * stride + tap
        y = y + torch.einsum("oc,nctv->notv", weight[:, :, tap, 0], x[:, :, frames])
    return y


def residual(encoder: Encoder, index: int, x: Tensor, out_channels: int) -> Tensor:
    """x itself where the shapes agree, else BN of a strided 1x1 convolution."""
    stride, name = encoder.strides[index], f"blocks.{index}.residual"
    if stride == 1 and x.shape[1] == out_channels:
        return x
    weight, bias = encoder.state[f"{name}.conv.weight"], encoder.state[f"{name}.conv.bias"]
    return batch_norm(encoder, f"{name}.norm", temporal_conv(x, weight, bias, stride))


def batch_norm(encoder: Encoder, name: str, x: Tensor) -> Tensor:
    """Normalises dimension 1 over all others, padded joints counted like real ones.

    In training mode by the batch's mean and biased variance, and the running estimates move by
    a tenth towards the mean and the unbiased variance; in eval mode by the running estimates.
    """
    mean_name, var_name = f"{name}.running_mean", f"{name}.running_var"
    running = encoder.running
    if encoder.train:
        others = [dim for dim in range(x.dim()) if dim != 1]
        count = x.numel() // x.shape[1]
        mean = x.mean(others)
        var = ((x - _channelwise(mean, x)) ** 2).mean(others)
        unbiased = var.detach() * count / (count - 1)
        running[mean_name] = _towards(running[mean_name], mean.detach())
        running[var_name] = _towards(running[var_name], unbiased)
    else:
        mean, var = running[mean_name], running[var_name]
    x = (x - _channelwise(mean, x)) / _channelwise(var + NORM_EPSILON, x).sqrt()
    weight, bias = encoder.state[f"{name}.weight"], encoder.state[f"{name}.bias"]
    return x * _channelwise(weight, x) + _channelwise(bias, x)


def _channelwise(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape([1, -1] + [1] * (x.dim() - 2))


def _towards(old: Tensor, new: Tensor) -> Tensor:
    return (1 - NORM_MOMENTUM) * old + NORM_MOMENTUM * new


def to_double(tensors: State) -> State:
    return {name: value.detach().double() for name, value in tensors.items()}
