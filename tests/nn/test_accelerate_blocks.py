"""accelerate on whole blocks: the same numbers as before, and where a block's own forward runs."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from benchmarks.plain_stgcn import Block
from msclr import kernels
from msclr.nn.accelerate import accelerate
from tests.nn.lookalikes import LambdaBlock, PaddedEncoder, PysklBlock, graph, scattered

EXACT = {"rtol": 1e-9, "atol": 1e-9}


class OnGraph(nn.Module):
    """A block that is given its graph times importance."""

    def __init__(self, block):
        super().__init__()
        self.register_buffer("A", graph())
        self.edge_importance = nn.ParameterList([torch.ones_like(self.A)])
        self.block = block

    def forward(self, x):
        return self.block(x, self.A * self.edge_importance[0])[0]


class Alone(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        return self.block(x)


SHAPES = {"none": (4, 6, 1, False), "identity": (4, 4, 1, True), "wider": (4, 6, 1, True)}
SHAPES |= {"strided": (4, 4, 2, True), "strided, none": (4, 6, 2, False)}


def block_of(kind, c_in=4, c_out=4, stride=1, residual=True, dropout=0.0):
    """A model with one block of a kind."""
    if kind.startswith("pyskl"):
        options = {"adaptive": kind.removeprefix("pyskl ")} if " " in kind else {}
        options["dropout"] = dropout
        return Alone(PysklBlock(c_in, c_out, graph(), stride, residual, with_res=False, **options))
    make = LambdaBlock if kind == "lambdas" else Block
    return OnGraph(make(c_in, c_out, 3, stride, residual, dropout))


KINDS = ("modules", "lambdas", "pyskl", "pyskl init", "pyskl offset")


def made(kind="lambdas", **options):
    torch.manual_seed(0)
    model = scattered(block_of(kind, **options))
    return model, torch.randn(2, 4, 7, 5, dtype=torch.float64)


def step(model, x):
    """Output, gradients and what the step leaves in the buffers."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    y = model(x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    return {"y": y.detach(), "x": x.grad} | gradients | buffers


class Counts:
    """How often blocks ran whole, and how often a block's own forward did."""

    def __init__(self, monkeypatch):
        self.whole = self.own = 0
        monkeypatch.setattr(kernels, "stgcn_block", self._counted(kernels.stgcn_block, "whole"))
        for kind in (Block, LambdaBlock, PysklBlock):
            monkeypatch.setattr(kind, "forward", self._counted(kind.forward, "own"))

    def _counted(self, function, name):
        @functools.wraps(function)
        def counted(*args, **kwargs):
            setattr(self, name, getattr(self, name) + 1)
            return function(*args, **kwargs)

        return counted

    def of(self, run):
        """(whole, own) during a call."""
        before = self.whole, self.own
        run()
        return self.whole - before[0], self.own - before[1]


@pytest.fixture
def counts(monkeypatch):
    return Counts(monkeypatch)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_block_runs_whole_and_gives_the_same(kind, shape, training, counts):
    c_in, c_out, stride, residual = SHAPES[shape]
    model, x = made(kind, c_in=c_in, c_out=c_out, stride=stride, residual=residual)
    model.train(training)
    plain = copy.deepcopy(model)
    summary = accelerate(model)
    assert summary.blocks == ("block",) and not summary.parted and not summary.left
    found = []
    assert counts.of(lambda: found.extend([step(model, x), step(model, 2 * x)])) == (2, 0)
    wanted = [step(plain, x), step(plain, 2 * x)]
    torch.testing.assert_close(found, wanted, **EXACT)


@pytest.mark.parametrize("kind", ["modules", "lambdas", "pyskl"])
def test_a_contiguous_model_and_one_in_channels_last_stay_so(kind):
    for order in (torch.contiguous_format, torch.channels_last):
        model, x = made(kind, c_out=6)
        model = nn.Sequential(model, nn.Conv2d(6, 6, 1).double()).to(memory_format=order)
        plain = copy.deepcopy(model)
        accelerate(model)
        formats = []
        for each in (model, plain):
            leaf = x.contiguous(memory_format=order).requires_grad_()
            entry = leaf * 1
            entry.register_hook(lambda g, found=formats: found.append(strides(g)))
            y = each[0](entry)
            formats.append(strides(y))
            each[1](y).square().sum().backward()
        assert formats[:2] == formats[2:] and formats[0] == strides(
            torch.empty(1, 6, 7, 5).contiguous(memory_format=order)
        )


@pytest.mark.parametrize("training", [True, False])
def test_blocks_shared_by_graphs_of_unlike_sizes_give_the_same(training, counts):
    torch.manual_seed(0)
    graphs = {"five": graph(), "seven": graph(joints=7)}
    plain = scattered(PaddedEncoder(graphs, (4, 4, 6))).train(training)
    model = copy.deepcopy(plain)
    assert len(accelerate(model).blocks) == 3
    x = {name: torch.randn(2, 3, 6, len(A[0]), 2).double() for name, A in graphs.items()}
    assert counts.of(lambda: pooled(model, x)) == (6, 0)
    pooled(plain, x)
    torch.testing.assert_close(step_of(model, x), step_of(plain, x), **EXACT)


def pooled(model, x):
    return torch.stack([model.features(clips, name) for name, clips in x.items()])


def step_of(model, x):
    model.zero_grad()
    y = pooled(model, x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {"y": y.detach()} | gradients | dict(model.named_buffers())


def strides(x):
    return [x.is_contiguous(), x.is_contiguous(memory_format=torch.channels_last)]


def hook_inside(model, x):
    model.block.tcn[0].register_forward_hook(lambda *_: None)


def backward_hook_inside(model, x):
    model.block.gcn.register_full_backward_hook(lambda *_: None)


def half_precision(model, x):
    model.to(torch.bfloat16)
    return x.bfloat16()


def norm_in_eval(model, x):
    model.block.tcn[3].eval()


def dropout_in_eval_block(model, x):
    model.eval()
    model.block.tcn[4].train().p = 0.5


def sync_norms(model, x):
    model.block.tcn = nn.SyncBatchNorm.convert_sync_batchnorm(model.block.tcn).eval()


def parametrized(model, x):
    parametrizations.weight_norm(model.block.tcn[2])


def parametrized_by_hand(model, x):
    parametrize.register_parametrization(model.block.tcn[2], "weight", nn.Tanh())


def other_activation(model, x):
    model.block.relu = nn.GELU()


def other_inner_activation(model, x):
    model.block.tcn[1] = nn.LeakyReLU()


def other_residual(model, x):
    model.block.residual = lambda x: 2 * x


def residual_with_hook(model, x):
    model.block.residual = nn.Identity()
    model.block.residual.register_forward_hook(lambda module, args, y: 3 * y)


def no_statistics(model, x):
    model.block.tcn[0] = nn.BatchNorm2d(4, track_running_stats=False).double()


def no_affine(model, x):
    model.block.tcn[0] = nn.BatchNorm2d(4, affine=False).double()


def other_eps(model, x):
    model.block.tcn[0].eps = 0.1


def other_momentum(model, x):
    model.block.tcn[0].momentum = 0.5


def dilated(model, x):
    model.block.tcn[2] = nn.Conv2d(4, 4, (9, 1), 1, (8, 0), (2, 1)).double()


def shorter(model, x):
    model.block.tcn[2] = nn.Conv2d(4, 4, (7, 1), 1, (3, 0)).double()


def circular(model, x):
    model.block.tcn[2] = nn.Conv2d(4, 4, (9, 1), 1, (4, 0), padding_mode="circular").double()


def replaced_inside(model, x):
    conv = model.block.tcn[2]
    conv.forward = lambda x: 2 * nn.Conv2d.forward(conv, x)


def no_clips(model, x):
    return x[:0]


FALL_BACKS = [
    hook_inside,
    backward_hook_inside,
    half_precision,
    norm_in_eval,
    dropout_in_eval_block,
    sync_norms,
    parametrized,
    parametrized_by_hand,
    other_activation,
    other_inner_activation,
    other_residual,
    residual_with_hook,
    no_statistics,
    no_affine,
    other_eps,
    other_momentum,
    dilated,
    shorter,
    circular,
    replaced_inside,
    no_clips,
]


@pytest.mark.parametrize("change", FALL_BACKS, ids=lambda change: change.__name__)
def test_what_no_longer_fits_runs_the_blocks_own_forward(change, counts):
    model, x = made()
    plain = copy.deepcopy(model)
    assert accelerate(model).blocks
    torch.manual_seed(1)
    changed = change(model, x)
    torch.manual_seed(1)
    change(plain, x)
    x = x if changed is None else changed
    found = []
    torch.manual_seed(2)
    assert counts.of(lambda: found.append(step(model, x))) == (0, 1)
    torch.manual_seed(2)
    wanted = step(plain, x)
    if x.dtype == torch.float64:  # the graph convolution alone rounds as its kernel does
        torch.testing.assert_close(found, [wanted], **EXACT)


def test_autocast_runs_whole_and_hooks_of_all_modules_run_the_own_forward(counts):
    model, x = made()
    model, x = model.float(), x.float()
    accelerate(model)
    with torch.autocast("cpu", torch.bfloat16):
        assert counts.of(lambda: model(x)) == (1, 0)
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: seen.append(type(m)))
    try:
        assert counts.of(lambda: model(x)) == (0, 1)
    finally:
        handle.remove()
    assert nn.Conv2d in seen
    assert counts.of(lambda: model(x)) == (1, 0)
    A = graph()
    assert counts.of(lambda: model.block(x=x, A=A)) == (0, 1)
    with pytest.raises(AssertionError):  # the layer's own: two partitions
        model.block(x, A[:2])


def test_one_row_in_training_raises_the_norms_own_error(counts):
    model, _ = made()
    accelerate(model)
    model.A, model.edge_importance = model.A[:, :1, :1], nn.ParameterList([torch.ones(3, 1, 1)])
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model.double()(torch.randn(1, 4, 1, 1, dtype=torch.float64))


def test_hooks_on_the_block_itself_run_and_it_runs_whole(counts):
    model, x = made()
    accelerate(model)
    seen = []
    model.block.register_forward_hook(lambda module, args, y: seen.append(y[0].shape))
    assert counts.of(lambda: model(x)) == (1, 0) and seen == [(2, 4, 7, 5)]
