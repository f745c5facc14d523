"""Accelerated models with optimizers, in several processes, checkpointed, compiled, exported."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from benchmarks.plain_stgcn import Block, ConvTemporalGraphical
from msclr.nn.accelerate import accelerate
from tests.nn.accelerated import EXACT, WIDTHS, made, run
from tests.nn.lookalikes import Encoder, graph
from tests.ranks import be_a_rank, run_ranks


def stepped(model, optimizer, x):
    """Losses and weights of two steps."""
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return {"losses": torch.stack(losses)} | {n: p.detach() for n, p in model.named_parameters()}


@pytest.mark.parametrize("name", ["st-gcn", "pyskl, importance, residual True"])
def test_an_optimizer_made_before_steps_the_same_weights(name):
    model, x = made(name)
    plain = copy.deepcopy(model)
    optimizers = [torch.optim.SGD(m.parameters(), 0.1, momentum=0.9) for m in (model, plain)]
    accelerate(model)
    found = stepped(model, optimizers[0], x)
    torch.testing.assert_close(found, stepped(plain, optimizers[1], x), **EXACT)
    assert any(not torch.equal(found[n], p) for n, p in made(name)[0].named_parameters())


def run_rank(rank: int) -> dict:
    """Steps under DDP on a share of the clips, accelerated before it, after it, or not at all."""
    found = {}
    for when in ("before", "after", "never"):
        model, x = made("st-gcn")
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        if when == "before":
            accelerate(model)
        parallel = DistributedDataParallel(model)
        if when == "after":
            accelerate(parallel)
        swapped = sum(type(m) is not ConvTemporalGraphical for m in gcns(model))
        assert swapped == (0 if when == "never" else len(WIDTHS))
        found[when] = stepped(parallel, optimizer, x[rank : rank + 1])
    return found


def gcns(model):
    return [m for m in model.modules() if isinstance(m, ConvTemporalGraphical)]


def test_distributed_data_parallel_trains_it_in_two_processes(tmp_path):
    ranks = run_ranks(__file__, 2, tmp_path)
    for found in ranks:
        for when in ("before", "after"):
            torch.testing.assert_close(found[when], found["never"], **EXACT)
    losses = [found["before"].pop("losses") for found in ranks]
    assert not torch.isclose(*losses).any(), "ranks hold unlike clips"
    torch.testing.assert_close(ranks[0]["before"], ranks[1]["before"], **EXACT)


class CheckpointedBlock(Block):
    """Keeps no activations, and runs again in the backward pass."""

    reentrant = False

    def forward(self, x, A):
        return checkpoint(super().forward, x, A, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_goes_on(reentrant):
    model, x = made("st-gcn")
    plain = copy.deepcopy(model)
    for block in model.st_gcn_networks:
        block.__class__, block.reentrant = CheckpointedBlock, reentrant
    accelerate(model)
    torch.testing.assert_close(run(model, x), run(plain, x), **EXACT)


class AddsLearned(Encoder):
    """Adds a graph that starts at zero and learns, also where the fixed one is zero."""

    def __init__(self, *shapes):
        super().__init__(graph(), widths=WIDTHS)
        self.learned = nn.ParameterList(torch.ones(shape) for shape in shapes)

    def weighted(self, importance):
        learned = self.learned[0]
        for factor in self.learned[1:]:
            learned = learned @ factor
        return super().weighted(importance) + learned


@pytest.mark.parametrize(
    ("shapes", "compiled"),
    [([(3, 5, 5)], False), ([(3, 5, 5)], True), ([(3, 5, 2), (3, 2, 5)], False)],
)
def test_what_is_learned_next_to_the_importance_gets_its_full_gradient(shapes, compiled):
    torch.manual_seed(0)
    model, x = AddsLearned(*shapes).double(), torch.randn(2, 3, 6, 5, 2, dtype=torch.float64)
    nn.init.zeros_(model.learned[-1])
    plain = copy.deepcopy(model)
    accelerate(model)
    if compiled:
        torch._dynamo.reset()
        model.compile(backend="aot_eager")
    torch.testing.assert_close(run(model, x), run(plain, x), **EXACT)


@pytest.mark.parametrize("name", ["st-gcn", "pyskl, importance, residual False"])
def test_it_compiles_and_exports_whole(name):
    model, x = made(name)
    plain = copy.deepcopy(model)
    accelerate(model)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(run(compiled, x)[0], run(plain, x)[0], **EXACT)
    exported = torch.export.export(model.eval(), (x,)).module()
    torch.testing.assert_close(exported(x), plain.eval()(x), **EXACT)


if __name__ == "__main__":
    be_a_rank(run_rank)
