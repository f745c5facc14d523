"""A frozen ST-GCN of standard operators: its norms folded into its convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msclr.nn import STGCN
from msclr.nn.block import STGCNBlock


class FoldedSTGCN(nn.Module):
    """What an :class:`~msclr.nn.STGCN` computes in eval mode, of tracks of one layout.

    forward: x (B, C, T, V) float32 and the layout's name -> (B, D) float32, the mean over frames
    and joints. The convolutions' weights are there once for all layouts; a layout has its graphs,
    and what the norms and biases before a graph add to each joint.
    """

    def __init__(self, encoder: STGCN, layouts: list[str]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_Convs(block) for block in encoder.blocks)
        self.graphs = nn.ModuleDict({name: _Graphs(encoder, name) for name in layouts})

    def forward(self, x: Tensor, layout: str) -> Tensor:
        graphs = self.graphs[layout]
        x = x * graphs.input_scale + graphs.input_shift
        for i, convs in enumerate(self.convs):
            adjacency, shift = (getattr(graphs, f"{part}_{i}") for part in ("adjacency", "shift"))
            x = convs(x, adjacency, shift)
        return x.mean(dim=(2, 3))


class _Graphs(nn.Module):
    """The tensors that belong to one layout."""

    @torch.no_grad()
    def __init__(self, encoder: STGCN, layout: str) -> None:
        super().__init__()
        joints, channels = encoder.layouts[layout].num_joints, encoder.in_channels
        scale, shift = (
            part.view(joints, 1, channels).permute(2, 1, 0)  # (C, 1, V)
            for part in _affine(encoder.input_norm[layout])
        )
        self.register_buffer("input_scale", scale.float().contiguous())
        self.register_buffer("input_shift", shift.float().contiguous())
        fixed = getattr(encoder, f"adjacency_{layout}").double()  # (K, V, V)
        for i, block in enumerate(encoder.blocks):
            adjacency = fixed * encoder.edge_importance[layout][i].double()
            scale, shift = _affine(block.gcn_norm)
            moved = shift[:, None].expand(-1, joints)  # (C, V)
            if block.gcn.conv.bias is not None:
                bias = block.gcn.conv.bias.double().view(len(adjacency), -1)  # (K, C)
                moved = moved + scale[:, None] * (bias.T @ adjacency.sum(dim=1))
            self.register_buffer(f"adjacency_{i}", adjacency.float())
            self.register_buffer(f"shift_{i}", moved[:, None].float().contiguous())  # (C, 1, V)


class _Convs(nn.Module):
    """A block: relu(tconv9(relu(gconv(x) + shift)) + residual(x))."""

    @torch.no_grad()
    def __init__(self, block: STGCNBlock) -> None:
        super().__init__()
        self.stride = block.tcn.stride[0]
        scale, _ = _affine(block.gcn_norm)
        weight = block.gcn.conv.weight.double().unflatten(0, (-1, len(scale)))  # (K, C', C, 1, 1)
        weight = (weight * scale[:, None, None, None]).flatten(0, 1)
        self.register_buffer("graph_weight", weight.float())
        self._fold("time", block.tcn, block.tcn_norm)
        residual = block.residual
        self.adds = residual is not None
        self.projects = self.adds and residual.conv is not None
        if self.projects:
            self._fold("residual", residual.conv, residual.norm)

    def _fold(self, name: str, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        scale, shift = _affine(norm)
        weight = conv.weight.double() * scale[:, None, None, None]
        bias = shift if conv.bias is None else shift + scale * conv.bias.double()
        self.register_buffer(f"{name}_weight", weight.float())
        self.register_buffer(f"{name}_bias", bias.float())

    def forward(self, x: Tensor, adjacency: Tensor, shift: Tensor) -> Tensor:
        z = F.conv2d(x, self.graph_weight).unflatten(1, (len(adjacency), -1))  # (B, K, C, T, V)
        h = F.relu((z.flatten(2, 3) @ adjacency).sum(dim=1).unflatten(1, z.shape[2:4]) + shift)
        y = F.conv2d(h, self.time_weight, self.time_bias, (self.stride, 1), (4, 0))
        if self.projects:
            y = y + F.conv2d(x, self.residual_weight, self.residual_bias, (self.stride, 1))
        elif self.adds:
            y = y + x
        return F.relu(y)


def _affine(norm: nn.modules.batchnorm._BatchNorm) -> tuple[Tensor, Tensor]:
    """What a norm multiplies by and adds in eval mode, float64."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - scale * norm.running_mean.double()
