"""accelerate on whole blocks in training: steps, dropout, copies, checkpointing, compilation."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from msclr import kernels
from msclr.nn import STGCNBlock
from msclr.nn.accelerate import accelerate, blocks, restore
from msclr.nn.accelerate.blocks import too_small  # as it is: conftest.py sets it aside
from tests.nn.lookalikes import Encoder, LambdaBlock, LambdaEncoder, PysklEncoder, graph

WIDTHS = (4, 4, 4, 4, 8, 8, 8, 12, 12, 12)


class Classifier(nn.Module):
    """pyskl's blocks with a head."""

    def __init__(self):
        super().__init__()
        self.backbone = PysklEncoder(graph(), WIDTHS)
        self.fc = nn.Linear(WIDTHS[-1], 6)

    def forward(self, x):
        return self.fc(self.backbone(x.permute(0, 4, 2, 3, 1)).mean((1, 3, 4)))


MODELS = {
    "modules": lambda: Encoder(graph(), WIDTHS),
    "functions": lambda: LambdaEncoder(graph(), WIDTHS),
    "pyskl": Classifier,
}


def trained(model, steps=30):
    """Losses of steps of SGD, the weights and statistics after them, and logits in eval."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4, 3, 12, 5, 2, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3])
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    with torch.no_grad():
        logits = model.eval()(x)
    return {"losses": torch.stack(losses), "logits": logits} | model.state_dict()


@pytest.mark.parametrize("name", MODELS)
def test_thirty_steps_end_where_they_did(name):
    torch.manual_seed(0)
    plain = MODELS[name]().double()
    model = copy.deepcopy(plain)
    assert len(accelerate(model).blocks) == len(WIDTHS)
    found, wanted = trained(model), trained(plain)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)
    assert wanted["losses"][-1] < 0.7 * wanted["losses"][0]


def identity_block(p=0.3):
    """A block that gives dropout(constant) + 0: the second norm's weight is 0 and its bias 1."""
    block = LambdaBlock(4, 4, 3, residual=False, dropout=p)
    nn.init.zeros_(block.tcn[3].weight)
    nn.init.ones_(block.tcn[3].bias)
    return block


def test_dropout_drops_its_rate_scales_the_rest_and_repeats_under_a_seed():
    block, x, A = identity_block(), torch.randn(16, 4, 20, 5), graph()
    accelerate(block)
    torch.manual_seed(5)
    first, second = block(x, A)[0], block(x, A)[0]
    torch.manual_seed(5)
    assert torch.equal(block(x, A)[0], first) and not torch.equal(first, second)
    kept = first > 0
    torch.testing.assert_close(first[kept], torch.full_like(first[kept], 1 / 0.7))
    deviation = (0.3 * 0.7 / first.numel()) ** 0.5
    assert abs(kept.float().mean() - 0.7) < 4 * deviation
    per_channel = kept.float().mean((0, 2, 3))
    assert (per_channel - 0.7).abs().max() < 4 * 2 * deviation
    assert torch.equal(block.eval()(x, A)[0], torch.ones_like(first))


def test_dropout_reaches_the_gradient_as_the_same_mask():
    block, A = identity_block(), graph()
    accelerate(block)
    y, _ = block(torch.randn(8, 4, 10, 5), A)
    y.sum().backward()
    torch.testing.assert_close(block.tcn[3].bias.grad, y.detach().sum((0, 2, 3)))


def test_checkpointing_around_a_block_draws_the_same_dropout_twice():
    torch.manual_seed(0)
    block, A = LambdaBlock(4, 4, 3, dropout=0.5).double(), graph().double()
    accelerate(block)
    x = torch.randn(2, 4, 6, 5, dtype=torch.float64, requires_grad=True)
    grads = []
    for run in (block, lambda *given: checkpoint(block, *given, use_reentrant=False)):
        torch.manual_seed(1)
        y, _ = run(x, A)
        grads.append(torch.autograd.grad(y.square().sum(), [x, *block.parameters()]))
    torch.testing.assert_close(*grads)


def test_cumulative_averages_advance_as_before():
    torch.manual_seed(0)
    plain = LambdaBlock(4, 6, 3).double()
    for place, norm in enumerate(m for m in plain.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = None
        norm.num_batches_tracked.fill_(place)  # not alike
    block = copy.deepcopy(plain)
    assert accelerate(block).blocks
    for _ in range(3):
        x = torch.randn(2, 4, 6, 5, dtype=torch.float64)
        for each in (plain, block):
            each(x, graph().double())
    torch.testing.assert_close(dict(block.named_buffers()), dict(plain.named_buffers()))


@pytest.fixture
def calls(monkeypatch):
    """Of the fused operator."""
    found, operator = [], kernels.stgcn_block
    monkeypatch.setattr(
        kernels, "stgcn_block", lambda *a, **k: found.append(k) or operator(*a, **k)
    )
    return found


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_run_whole_and_restore_undoes_it(copied, calls):
    torch.manual_seed(0)
    model = Encoder(graph(), WIDTHS[:4]).double()
    kinds = [type(m) for m in model.modules()]
    x = torch.randn(2, 3, 6, 5, 2, dtype=torch.float64)
    wanted = model.eval()(x)
    once = accelerate(model)
    assert accelerate(model) == once and len(once.blocks) == 4
    other = copied(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    calls.clear()
    torch.testing.assert_close(other(x), wanted)
    assert len(calls) == 4
    restore(other)
    assert [type(m) for m in other.modules()] == kinds
    assert torch.equal(other(x), wanted) and len(calls) == 4


def test_a_little_work_runs_the_graph_convolution_alone(calls, monkeypatch):
    monkeypatch.setattr(blocks, "too_small", too_small)
    block, A = LambdaBlock(16, 16, 3).eval(), graph().float()
    accelerate(block)
    calls.clear()
    one, many = torch.randn(1, 16, 50, 5), torch.randn(10, 16, 50, 5)
    block(one, A)
    assert not calls
    block(many, A)
    assert len(calls) == 1
    assert too_small(325, 256) and not too_small(1300, 256), "the weights of wide layers"


def test_a_block_compiles_whole_in_unlike_sizes_and_with_dropout(calls):
    torch._dynamo.reset()
    torch.manual_seed(0)
    plain = LambdaBlock(4, 6, 3, dropout=0.5).double().eval()
    block, A = copy.deepcopy(plain), graph().double()
    accelerate(block)
    calls.clear()
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    for n in (2, 3, 4):
        x = torch.randn(n, 4, 6, 5, dtype=torch.float64)
        torch.testing.assert_close(compiled(x, A)[0], plain(x, A)[0])
    y, _ = compiled.train()(x, A)
    y.sum().backward()
    assert calls and block.tcn[3].num_batches_tracked == 1
    assert calls[-1]["dropout"] == 0.5 and calls[-1]["seed"] is not None


def test_an_export_may_leave_the_number_of_clips_open(calls):
    torch.manual_seed(0)
    model = LambdaEncoder(graph(), (4, 6)).double().eval()
    x = torch.randn(6, 3, 6, 5, 2, dtype=torch.float64)
    wanted = model(x)
    assert accelerate(model).blocks
    calls.clear()
    sizes = ({0: torch.export.Dim("n")},)
    exported = torch.export.export(model, (x[:3],), dynamic_shapes=sizes).module()
    torch.testing.assert_close(exported(x), wanted)
    assert not calls


def test_a_block_of_ours_with_dropout_in_eval_drops():
    block = STGCNBlock(4, 4, dropout=0.5).eval()
    nn.init.constant_(block.tcn_norm.bias, 1.0)
    x, A = torch.randn(4, 4, 8, 5), graph()
    without, _ = block(x, A)
    block.dropout.train()
    assert not torch.equal(block(x, A)[0], without)


def test_a_block_of_ours_with_another_convolution_runs_it():
    block, x, A = STGCNBlock(4, 4).eval(), torch.randn(2, 4, 8, 5), graph()
    before, _ = block(x, A)
    torch.nn.utils.parametrize.register_parametrization(block.tcn, "weight", nn.Tanh())
    block.tcn.register_forward_hook(lambda module, args, y: 0 * y)
    with_zeros, _ = block(x, A)
    assert not torch.equal(before, with_zeros)
    block = STGCNBlock(4, 4).eval()
    block.tcn = nn.Conv2d(4, 4, (3, 1), 1, (1, 0))
    assert block(x, A)[0].shape == before.shape
