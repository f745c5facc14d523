"""A block as one operator is its modules one after the other: values, gradients, statistics."""

from __future__ import annotations

import copy

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from msclr import kernels
from msclr.kernels import _choice
from msclr.kernels.block.operator import stgcn_block as block_operator
from msclr.nn import STGCN, STGCNBlock, block, fused, stgcn
from tests.needs import needs_operators
from tests.nn.test_stgcn import A, B, clips, encoder

pytestmark = needs_operators


@pytest.fixture
def calls(monkeypatch):
    """How often a block ran as one operator."""
    made, run = [], block.run_fused

    def counted(*arguments):
        made.append(arguments)
        return run(*arguments)

    monkeypatch.setattr(block, "run_fused", counted)
    return made


def features_and_gradients(model, x):
    features = model(x)
    total = sum((f * (i + 1)).square().sum() for i, f in enumerate(features.values()))
    gradients = torch.autograd.grad(total, list(model.parameters()))
    return features, gradients


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_it_is_the_modules_one_after_the_other(train, momentum, calls, monkeypatch):
    model = encoder(A, B).train(train)
    for module in model.modules():
        if hasattr(module, "momentum"):
            module.momentum = momentum
    plain = copy.deepcopy(model)
    x = {A: clips(A, n=3), B: clips(B, n=2, frames=12, seed=1)}
    found = features_and_gradients(model, x)
    assert len(calls) == 10
    for module in (block, stgcn):
        monkeypatch.setattr(module, "can_fuse", lambda *_: False)
    expected = features_and_gradients(plain, x)
    assert len(calls) == 10
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    for (name, ours), theirs in zip(model.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b.tcn.register_forward_hook(lambda *_: None),
        lambda b: b.gcn.conv.register_full_backward_hook(lambda *_: None),
        lambda b: b.gcn_norm.eval(),
        lambda b: b.half(),
    ],
    ids=["a forward hook", "a backward hook", "a norm in another mode", "half precision"],
)
def test_a_block_that_does_not_fit_runs_its_modules(change, calls):
    part = STGCNBlock(3, 4).train()
    change(part)
    x = torch.randn(2, 3, 9, 5, dtype=part.tcn.weight.dtype)
    part(x, torch.rand(3, 5, 5, dtype=x.dtype))
    assert not calls


def flat(found):
    """All features and all gradients, each as one vector."""
    features, gradients = found
    return [torch.cat([t.flatten() for t in ts]) for ts in (features.values(), gradients)]


@pytest.mark.parametrize("train", [False, True])
def test_under_autocast_it_is_no_less_exact_than_its_modules(train, calls, monkeypatch):
    model = encoder(A, B).float().train(train)
    unfused = copy.deepcopy(model)
    x = {A: clips(A, n=3).float(), B: clips(B, n=2, frames=12, seed=1).float()}
    exact = features_and_gradients(copy.deepcopy(model), x)
    calls.clear()
    with torch.autocast("cpu", torch.bfloat16):
        found = features_and_gradients(model, x)
    assert len(calls) == 10 and all(f.dtype == torch.float32 for f in found[0].values())
    for module in (block, stgcn):
        monkeypatch.setattr(module, "can_fuse", lambda *_: False)
    with torch.autocast("cpu", torch.bfloat16):
        plain = features_and_gradients(unfused, x)
    monkeypatch.undo()
    for ours, theirs, wanted in zip(flat(found), flat(plain), flat(exact), strict=True):
        assert (ours - wanted).norm() < 1.2 * (theirs - wanted).norm()
    y, _ = STGCNBlock(3, 4)(torch.randn(2, 3, 9, 5), torch.rand(3, 5, 5))
    assert y.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = STGCNBlock(3, 4)(torch.randn(2, 3, 9, 5), torch.rand(3, 5, 5))
    assert y.dtype == torch.bfloat16


def test_a_seed_gives_the_same_dropout_again_and_blocks_differ():
    model = STGCN([A], 4, 8, dropout=0.5).train()
    x = clips(A).float()

    def features(seed):
        torch.manual_seed(seed)
        return model(x)

    first = features(1)
    assert torch.equal(features(1), first) and not torch.equal(features(2), first)
    part = STGCNBlock(4, 4, dropout=0.5, residual=False).train()
    rows, graph, seed = torch.randn(2, 4, 9, 5), torch.rand(3, 5, 5), torch.tensor(3)
    assert not torch.equal(part(rows, graph, seed, 0)[0], part(rows, graph, seed, 1)[0])


@pytest.fixture
def on_gpu(monkeypatch):
    """Whether a block fuses on a GPU that is made up, in a dtype or under autocast to one."""
    monkeypatch.setattr(_choice, "_adopted", {})
    monkeypatch.delenv("MSCLR_BACKEND", raising=False)

    def fuses(dtype, autocast=None):
        part = STGCNBlock(3, 4).train()
        with FakeTensorMode():
            for module in part.modules():
                for held in (module._parameters, module._buffers):
                    for name, tensor in held.items():
                        held[name] = torch.empty(tensor.shape, dtype=dtype, device="cuda:0")
            rows = torch.empty(90, 3, dtype=dtype, device="cuda:0")
            graph = torch.empty(3, 5, 5, dtype=dtype, device="cuda:0")
            torch.set_autocast_enabled("cuda", autocast is not None)
            torch.set_autocast_dtype("cuda", autocast or torch.float16)
            return fused.can_fuse(part, part.parts(), rows, [graph])

    yield fuses
    torch.set_autocast_enabled("cuda", False)
    torch.set_autocast_dtype("cuda", torch.float16)


@pytest.mark.skipif("triton" not in block_operator.backends, reason="no Triton")
def test_on_a_gpu_a_block_is_fused_where_a_backend_qualified_for_its_dtype(on_gpu):
    gpu = torch.device("cuda", 0)
    assert not on_gpu(torch.float32) and not on_gpu(torch.float32, torch.bfloat16)
    _choice.adopt(gpu, {("stgcn_block", "half"): ("triton",)})
    assert on_gpu(torch.float32, torch.bfloat16) and on_gpu(torch.float32, torch.float16)
    assert not on_gpu(torch.float32) and not on_gpu(torch.float64)
    assert not on_gpu(torch.bfloat16), "parameters in half precision are the modules'"
    _choice.adopt(gpu, {("stgcn_block", "single"): ("triton",), ("stgcn_block", "half"): ()})
    assert on_gpu(torch.float32) and not on_gpu(torch.float32, torch.bfloat16)
    with kernels.use_backend("reference"):
        assert not on_gpu(torch.float32)
