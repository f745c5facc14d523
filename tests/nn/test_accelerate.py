"""accelerate: other projects' models on the kernel, with the same weights, outputs, gradients."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from benchmarks.plain_stgcn import Block, ConvTemporalGraphical
from msclr import kernels
from msclr.nn import STGCN
from msclr.nn.accelerate import Summary, accelerate, restore
from tests.nn.accelerated import EXACT, MODELS, WIDTHS, made, run
from tests.nn.lookalikes import (
    AttentiveUnit,
    Encoder,
    LambdaBlock,
    PysklBlock,
    graph,
    unit_gcn,
)


@pytest.fixture
def supports(monkeypatch):
    """The support that each call of a kernel is given, of a graph convolution or a whole block."""
    calls, graph_conv, block = [], kernels.masked_graph_conv, kernels.stgcn_block

    def spy(*args, support=None, **options):
        calls.append(support)
        return graph_conv(*args, support=support, **options)

    def spy_of_blocks(x, adjacency, support, *args, partitions, **options):
        joints = x.segments[2]
        calls.append(None if support.all() else support.view(partitions, joints, joints))
        return block(x, adjacency, support, *args, partitions=partitions, **options)

    monkeypatch.setattr(kernels, "masked_graph_conv", spy)
    monkeypatch.setattr(kernels, "stgcn_block", spy_of_blocks)
    return calls


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_gradients_stay_and_the_kernel_runs(name, training, supports):
    model, x = made(name)
    model.train(training)
    plain = copy.deepcopy(model)
    summary = accelerate(model)
    layers = [
        n for n, m in model.named_modules() if isinstance(m, (ConvTemporalGraphical, unit_gcn))
    ]
    whole = (Block, LambdaBlock, PysklBlock)
    blocks = [n for n, m in model.named_modules() if isinstance(m, whole) and "parts" not in name]
    assert (summary.swapped, summary.left, summary.blocks) == (tuple(layers), {}, tuple(blocks))
    assert len(summary.parted) == (len(layers) if "parts" in name else 0)
    supports.clear()  # the trials
    result = run(model, x)
    assert len(supports) == len(layers)
    torch.testing.assert_close(result, run(plain, x), **EXACT)
    torch.testing.assert_close(dict(model.named_buffers()), dict(plain.named_buffers()), **EXACT)


@pytest.mark.parametrize("name", ["aimclr", "pyskl, importance, residual True"])
def test_state_dict_keys_stay_and_weights_load(name):
    model, x = made(name)
    plain = copy.deepcopy(model)
    accelerate(model)
    assert list(model.state_dict()) == list(plain.state_dict())
    changed = {key: value * 1.5 for key, value in plain.state_dict().items()}
    plain.load_state_dict(changed)
    model.load_state_dict(changed)
    torch.testing.assert_close(run(model, x), run(plain, x), **EXACT)


def pickled(model):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize(
    ("name", "copied"),
    [
        ("aimclr", copy.deepcopy),
        ("aimclr", pickled),
        ("pyskl, importance, residual False", copy.deepcopy),
        ("pyskl, importance, residual False", pickled),
    ],
)
def test_copies_are_accelerated_and_share_no_weights(name, copied, supports):
    model, x = made(name)
    wanted = run(model, x)
    accelerate(model)
    other = copied(model)
    supports.clear()
    torch.testing.assert_close(run(other, x), wanted, **EXACT)
    assert supports and all(support is not None for support in supports)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    torch.testing.assert_close(run(other, x), wanted, **EXACT)
    restore(other)
    assert [type(m) for m in other.modules()] == [type(m) for m in made(name)[0].modules()]


def test_a_graph_loaded_later_brings_its_own_support(supports):
    model, x = made("st-gcn")
    plain = copy.deepcopy(model)
    accelerate(model)
    model(x)
    other = graph().transpose(1, 2).roll(1, 0)
    for each in (model, plain):
        each.load_state_dict(each.state_dict() | {"A": other})
    supports.clear()
    torch.testing.assert_close(run(model, x), run(plain, x), **EXACT)
    assert all(torch.equal(support, other != 0) for support in supports)


@pytest.mark.parametrize("name", ["aimclr", "pyskl, init, residual True"])
def test_twice_is_once_and_restore_undoes_both(name, supports):
    model, x = made(name)
    types, attributes = [type(m) for m in model.modules()], [set(vars(m)) for m in model.modules()]
    wanted = run(model, x)
    once = accelerate(model)
    swapped = [type(m) for m in model.modules()]
    assert accelerate(model) == once and [type(m) for m in model.modules()] == swapped
    assert swapped != types and [t.__name__ for t in swapped] == [t.__name__ for t in types]
    run(model, x)
    restore(model)
    assert [type(m) for m in model.modules()] == types
    assert [set(vars(m)) for m in model.modules()] == attributes
    supports.clear()
    torch.testing.assert_close(run(model, x), wanted, rtol=0, atol=0)
    assert not supports


def test_fixed_graph_times_importance_passes_the_graphs_support(supports):
    names = ("st-gcn", "st-gcn, in parts", "st-gcn, no importance", "aimclr")
    for name in (*names, "pyskl, importance, residual True", "pyskl, importance, blocks"):
        model, x = made(name)
        accelerate(model)
        supports.clear()
        run(model, x)
        fixed = graph(2 if "no" in name else 3) != 0
        assert supports and all(torch.equal(support, fixed) for support in supports), name


@pytest.mark.parametrize("adaptive", ["init", "offset"])
def test_a_learned_graph_gets_its_full_gradient_and_no_support(adaptive, supports):
    model, x = made(f"pyskl, {adaptive}, residual True")
    accelerate(model)
    supports.clear()
    _, gradients = run(model, x)
    assert supports == [None, None]
    learned = [g for n, g in gradients.items() if n.endswith("A")]
    assert len(learned) == 2
    assert all((g != 0).float().mean() > 0.8 for g in learned)  # graph() has 13 of 75


def test_layers_called_from_outside_their_model_are_promised_nothing(supports):
    model, x = made("st-gcn")
    accelerate(model)
    model(x)
    supports.clear()
    dense = torch.rand(3, 5, 5, dtype=torch.float64, requires_grad=True)
    y, returned = model.st_gcn_networks[0].gcn(x[..., 0], dense)
    y.sum().backward()
    assert supports == [None] and returned is dense and bool((dense.grad != 0).all())


def test_a_model_that_gives_its_layers_another_graph_keeps_its_outputs():
    class Shifted(Encoder):
        def features(self, x):
            fixed, self.A = self.A, self.A + 0.1
            try:
                return super().features(x)
            finally:
                self.A = fixed

    torch.manual_seed(0)
    model = Shifted(graph(), widths=WIDTHS).double().eval()
    x = torch.randn(2, 3, 6, 5, 2, dtype=torch.float64)
    wanted = model(x)
    assert accelerate(model).swapped
    torch.testing.assert_close(model(x), wanted, **EXACT)


def test_calls_the_kernel_cannot_take_go_to_the_own_forward(supports):
    layer = ConvTemporalGraphical(2, 4, 3)
    accelerate(layer)
    supports.clear()
    with pytest.raises(AssertionError):  # the layer's own
        layer(torch.randn(1, 2, 3, 5), torch.rand(2, 5, 5))
    layer(torch.randn(1, 2, 3, 130), torch.rand(3, 130, 130))
    layer(x=torch.randn(1, 2, 3, 5), A=torch.rand(3, 5, 5))
    seen = []
    layer.conv.register_forward_hook(lambda *_: seen.append(1))
    layer(torch.randn(1, 2, 3, 5), torch.rand(3, 5, 5))
    assert seen and not supports


@pytest.mark.parametrize("path", ["gcn.1", "gcn.1.bn"])
def test_hooks_still_run_and_see_nothing_of_the_trial(path):
    model, x = made("pyskl, importance, residual True")
    seen = []
    model.get_submodule(path).register_forward_hook(lambda module, args, y: seen.append(y.shape))
    accelerate(model)
    assert not seen
    model(x)
    assert seen == [(2, 4, 6, 5)]


class Softmaxed(ConvTemporalGraphical):
    def forward(self, x, A):
        return super().forward(x, A.softmax(1))


class Dropping(ConvTemporalGraphical):
    def forward(self, x, A):
        return super().forward(nn.functional.dropout(x, training=self.training), A)


class MixtureGCN(nn.Module):
    """A stranger's graph convolution, known by the name of its class only."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(2, 2)


def hooked():
    layer = ConvTemporalGraphical(2, 4, 3)
    layer.conv.register_forward_hook(lambda *_: None)
    return layer


def rebound():
    layer = ConvTemporalGraphical(2, 4, 3)
    layer.forward = layer.forward
    return layer


def with_child():
    layer = ConvTemporalGraphical(2, 4, 3)
    layer.shift = nn.BatchNorm2d(2)
    return layer


def other_adaptive():
    layer = unit_gcn(2, 4, graph())
    layer.adaptive = "other"
    return layer


UNFIT = {
    "kernel size (3, 1)": lambda: ConvTemporalGraphical(2, 4, 3, t_kernel_size=3),
    "plain 1x1": lambda: ConvTemporalGraphical(2, 4, 3, stride=2),
    "computes something else": lambda: Softmaxed(2, 4, 3),
    "something else": lambda: Dropping(2, 4, 3),
    "hooks": hooked,
    "replaced on the instance": rebound,
    "holds shift": with_child,
    "could not be tried": lambda: ConvTemporalGraphical(2, 4, 3).to("meta"),
    "conv_pos is 'post'": lambda: unit_gcn(2, 4, graph(), conv_pos="post"),
    "adaptive is 'other'": other_adaptive,
    "no form": lambda: AttentiveUnit(2, 4, graph()),
    "no form that": MixtureGCN,
}


@pytest.mark.parametrize("reason", UNFIT)
def test_what_does_not_fit_is_left_alone_and_named(reason):
    layer = UNFIT[reason]()
    kind = type(layer)
    model = nn.Sequential(nn.Conv2d(2, 2, 1), layer, ConvTemporalGraphical(2, 4, 3))
    summary = accelerate(model)
    assert summary.swapped == ("2",)
    assert list(summary.left) == ["1"] and reason in summary.left["1"]
    assert type(layer) is kind
    assert f"left     1: {summary.left['1']}" in str(summary) and "swapped  2" in str(summary)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: None, "got NoneType: give the model itself"),
        (lambda: MixtureGCN().state_dict(), "got OrderedDict: a state_dict has no layers, load it"),
        (lambda: MixtureGCN, "got MixtureGCN: give an instance of the class"),
    ],
)
def test_what_is_no_model_is_a_type_error_with_the_mend(given, message):
    for function in (accelerate, restore):
        with pytest.raises(TypeError, match=message):
            function(given())


def test_models_without_graph_convolutions_and_our_own_are_not_named():
    for model in (nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU()), STGCN(["h36m_17"], 2, 4)):
        assert accelerate(model) == Summary((), {})


def test_the_trial_leaves_random_numbers_weights_and_statistics_alone():
    model, _ = made("pyskl, importance, residual True")
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    accelerate(model)
    assert torch.equal(state, torch.get_rng_state())
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)


def test_a_copy_of_a_layer_brings_no_copy_of_its_model():
    model, _ = made("st-gcn")
    accelerate(model)
    layer = model.st_gcn_networks[0].gcn
    assert len(pickle.dumps(layer)) < len(pickle.dumps(made("st-gcn")[0])) / 2
    assert (
        vars(copy.deepcopy(layer)).keys() == vars(made("st-gcn")[0].st_gcn_networks[0].gcn).keys()
    )


def test_a_block_alone_is_accelerated_too():
    block = Block(2, 4, 3).double().eval()
    x = torch.randn(2, 2, 6, 5, dtype=torch.float64)
    wanted, _ = block(x, graph().double())
    summary = accelerate(block)
    assert (summary.swapped, summary.blocks) == (("gcn",), ("",))
    torch.testing.assert_close(block(x, graph().double())[0], wanted, **EXACT)
