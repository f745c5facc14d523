"""load_pretrained: the forms in which the same weights are saved."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from msclr import layouts
from msclr.errors import InputError
from msclr.nn.pretrained import load_pretrained
from tests.nn.lookalikes import TwoEncoders, clips, trained

NAME = "kinectv2_25"
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(scope="module")
def saved():
    """AimCLR's outer model, clips, and the features that its query encoder has for them."""
    torch.manual_seed(0)
    model = trained(TwoEncoders(layouts.get(NAME).adjacency()))
    x = clips()
    with torch.no_grad():
        return model.state_dict(), x, model.encoder_q.features(x)


def below(prefix):
    return lambda state: {prefix + key: value for key, value in state.items()}


def within_the_encoder(state):
    return {
        key.replace("st_gcn_networks.", "st_gcn_networks._orig_mod."): state[key] for key in state
    }


FORMS = {
    "compiled": below("_orig_mod."),
    "Lightning": lambda state: {"epoch": 3, "state_dict": below("model.")(state)},
    "compiled, then DDP": below("module._orig_mod."),
    "DDP, then compiled": below("_orig_mod.module."),
    "compiled within": within_the_encoder,
    "Lightning, compiled, DDP": below("model._orig_mod.module."),
    "model_state_dict": lambda state: {"epoch": 3, "model_state_dict": state},
    "ema": lambda state: {"ema": state},
    "net": lambda state: {"net": below("module.")(state), "optimizer": {"state": {0: {}}}},
    "nested twice": lambda state: {"checkpoint": {"weights": state}},
    "state_dict and ema": lambda state: {
        "ema": {key: value + 1 for key, value in state.items() if value.is_floating_point()},
        "state_dict": state,
    },
    "NumPy numbers": lambda state: {
        "model": state,
        "best_acc": np.float64(77.7),
        "last": np.bool_(True),
        "epoch": np.int64(3),
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_encoder_is_read_from_any_form(form, saved, tmp_path):
    state, x, features = saved
    torch.save(FORMS[form](state), tmp_path / "weights.pt")
    ours, unused = load_pretrained(tmp_path / "weights.pt")
    assert list(ours.layouts) == [NAME]
    assert sum(key.endswith("encoder_q.fc.weight") for key in unused) == 1
    with torch.no_grad():
        torch.testing.assert_close(ours(x), features, **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("given", [None, [NAME]])
def test_half_precision_is_read_as_the_same_numbers_in_float32(dtype, given, saved):
    model = trained(TwoEncoders(layouts.get(NAME).adjacency())).encoder_q
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor is not model.A and tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype).double()
    half = {key: x.to(dtype) for key, x in model.state_dict().items() if x.is_floating_point()}
    ours, _ = load_pretrained(half, given)
    assert all(p.dtype == torch.float32 for p in ours.parameters())
    x = clips()
    # the graph is the exact one, not 1/3 in half precision
    torch.testing.assert_close(ours.double()(x), model.features(x), **CLOSE)


def test_a_checkpoint_of_two_precisions_is_read_in_the_wider(saved):
    state, x, features = saved
    mixed = {k: v.float() if k.endswith("tcn.2.bias") else v for k, v in state.items()}
    ours, _ = load_pretrained(mixed)
    assert {p.dtype for p in ours.parameters()} == {torch.float64}
    torch.testing.assert_close(ours(x), features, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"a": s, "b": dict(s)}, "has encoders in 'a', 'b': give the one"),
        (lambda s: {"model": s, "state_dict": s}, "has encoders in 'model', 'state_dict'"),
        (
            lambda s: below("teacher.")(s) | below("student.")(s),
            "several encoders, .*and several end in 'encoder_q.'",
        ),
        (
            lambda s: s | below("module.")(s),
            "both 'queue' and 'module.queue'",
        ),
        (
            lambda s: {"epoch": 3, "net": {"conv1.weight": torch.ones(1), "fc.bias": 0}},
            r"holds epoch, net \(conv1.weight, fc.bias\): no tensor's key ends in",
        ),
        (
            lambda s: {"net": {f"conv{i}.weight": torch.ones(1) for i in range(9)}},
            r"holds net \(conv0.weight, conv1.weight, conv2.weight, …\): no",
        ),
        (
            lambda s: {"xst_gcn_networks.0.gcn.conv.weight": torch.ones(1)},
            "holds xst_gcn_networks.0.gcn.conv.weight: no tensor's key",
        ),
    ],
)
def test_what_is_ambiguous_or_missing_is_named(change, message, saved):
    with pytest.raises(InputError, match=message) as caught:
        load_pretrained(change(saved[0]))
    assert "\n" not in str(caught.value)
