"""Blocks that accelerate does not swap whole, and the reasons that it gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from msclr.nn.accelerate import accelerate
from tests.nn.lookalikes import LambdaBlock, PysklBlock, graph


def with_norm_inside():
    block = LambdaBlock(4, 4, 3)
    block.shift = nn.BatchNorm2d(4)
    return block


def with_gelu():
    block = LambdaBlock(4, 4, 3)
    block.relu = nn.GELU()
    return block


def with_hook():
    block = LambdaBlock(4, 4, 3)
    block.tcn[0].register_forward_pre_hook(lambda *_: None)
    return block


def with_inner(place, module):
    block = LambdaBlock(4, 4, 3)
    block.tcn[place] = module
    return block


def with_residual(residual):
    block = LambdaBlock(4, 4, 3)
    block.residual = residual
    return block


def with_branches():
    block = PysklBlock(4, 4, graph(), with_res=False)
    block.tcn.branches = nn.ModuleList()
    return block


def with_dropout_in_residual():
    block = PysklBlock(4, 6, graph(), with_res=False)
    block.residual.drop.p = 0.5
    return block


class WithoutReLU(LambdaBlock):
    def forward(self, x, A):
        return self.tcn(self.gcn(x, A)[0]) + self.residual(x), A


class DetachedResidual(LambdaBlock):
    def forward(self, x, A):
        return self.relu(self.tcn(self.gcn(x, A)[0]) + self.residual(x).detach()), A


class DropsOfItsOwn(LambdaBlock):
    def forward(self, x, A):
        y, A = super().forward(x, A)
        return nn.functional.dropout(y, training=self.training), A


UNFIT = {
    "temporal kernel is (7, 1)": lambda: LambdaBlock(4, 4, 3, taps=7),
    "temporal stride is (3, 1)": lambda: LambdaBlock(4, 4, 3, stride=3),
    "other padding, dilation, groups": lambda: LambdaBlock(
        4, 4, 3, padding=(8, 0), dilation=(2, 1)
    ),
    "dilation, groups, channels, or no bias": lambda: LambdaBlock(4, 4, 3, groups=2),
    "or no bias": lambda: LambdaBlock(4, 4, 3, bias=False),
    "holds shift besides gcn": with_norm_inside,
    "relu is GELU": with_gelu,
    "tcn.0 has hooks": with_hook,
    "tcn is not Sequential(": lambda: with_inner(1, nn.LeakyReLU()),
    "tcn is not": lambda: with_inner(0, nn.SyncBatchNorm(4)),
    "no weight and bias": lambda: with_inner(0, nn.BatchNorm2d(4, affine=False)),
    "no running statistics": lambda: with_inner(3, nn.BatchNorm2d(4, track_running_stats=False)),
    "differ in eps or momentum": lambda: with_inner(3, nn.BatchNorm2d(4, momentum=None)),
    "leaves nothing": lambda: LambdaBlock(4, 4, 3, dropout=1.0),
    "gives neither 0 nor x": lambda: with_residual(lambda x: 2 * x),
    "could not be tried: ZeroDivisionError": lambda: with_residual(lambda x: x / (1 // 0)),
    "neither nothing, x, nor a conv": lambda: with_residual(nn.Conv2d(4, 4, 1)),
    "residual has dropout": with_dropout_in_residual,
    "residual of its own": lambda: PysklBlock(4, 4, graph()),
    "tcn is not pyskl's unit_tcn: it holds bn, branches": with_branches,
    "computes something else": lambda: WithoutReLU(4, 4, 3),
    "something else": lambda: DetachedResidual(4, 4, 3),
    "its forward computes": lambda: DropsOfItsOwn(4, 4, 3),
}


@pytest.mark.parametrize("reason", UNFIT)
def test_of_a_block_that_does_not_fit_the_graph_convolution_alone_is_swapped(reason):
    block = UNFIT[reason]()
    model = nn.ModuleList([block, LambdaBlock(4, 4, 3)])
    kind, state = type(block), torch.get_rng_state()
    summary = accelerate(model)
    assert summary.blocks == ("1",) and summary.swapped == ("0.gcn", "1.gcn")
    assert list(summary.parted) == ["0"] and reason in summary.parted["0"]
    assert type(block) is kind and torch.equal(state, torch.get_rng_state())
    lines = str(summary).splitlines()
    assert lines[0] == "1 whole blocks swapped, 1 graph convolutions swapped, 0 left"
    assert f"  swapped  0.gcn, not its whole block: {summary.parted['0']}" in lines
    assert "  whole    1" in lines


def test_a_block_whose_graph_convolution_is_left_is_not_named():
    block = LambdaBlock(4, 4, 3)
    block.gcn.conv.register_forward_hook(lambda *_: None)
    summary = accelerate(nn.ModuleList([block]))
    assert not summary.blocks and not summary.parted and list(summary.left) == ["0.gcn"]
