"""load_pretrained: encoders of several conventions, all padded with zeros to the most joints."""

from __future__ import annotations

import pytest
import torch

from msclr import layouts
from msclr.errors import InputError
from msclr.nn.pretrained import load_pretrained
from tests.nn.lookalikes import PaddedEncoder, clips, trained

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
LABELS = {"ntu-rgb+d": "kinectv2_25", "smplx_42": "smplx_42", "smpl_24": "smpl_24"}
NORM = "data_bn.ntu-rgb+d."


def padded(**options):
    torch.manual_seed(0)
    graphs = {label: layouts.get(name).adjacency() for label, name in LABELS.items()}
    model = trained(PaddedEncoder(graphs, **options))
    for label, norm in model.data_bn.items():  # statistics of clips, so those of padding are of 0
        norm.reset_running_stats()
        norm.train()
        with torch.no_grad():
            model.features(1 + clips(model.joints[label]), label)
        norm.eval()
    return model


@pytest.fixture(scope="module")
def model():
    return padded()


@pytest.fixture
def state(model):
    return dict(model.state_dict())


def with_underscores(state):
    """The same names, with an underscore before the convention's."""
    for part in ("data_bn", "edge_importance"):
        state = {key.replace(f"{part}.", f"{part}_"): value for key, value in state.items()}
    return state


def with_dots(state):
    return {key.replace("A_", "A.", 1): value for key, value in state.items()}


@pytest.mark.parametrize("named", [dict, with_underscores, with_dots])
@pytest.mark.parametrize("norms_padded", [True, False])
def test_padding_is_cut_off_and_features_stay(named, norms_padded, tmp_path):
    model = padded(norms_padded=norms_padded)
    state = named(model.state_dict())
    both = {f"encoder_{e}.{key}": value for e in "qk" for key, value in state.items()}
    torch.save({"epoch": 3, "model": both}, tmp_path / "weights.pt")
    ours, unused = load_pretrained(tmp_path / "weights.pt")
    assert list(ours.layouts) == [*LABELS.values()]
    head = {"encoder_q.fc.weight", "encoder_q.fc.bias"}
    assert set(unused) == head | {key for key in both if key.startswith("encoder_k.")}
    for label, name in LABELS.items():
        x = clips(layouts.get(name).num_joints)
        with torch.no_grad():
            torch.testing.assert_close(ours(x, layout=name), model.features(x, label), **CLOSE)


def test_half_precision_is_cut_as_well(model, state):
    half = {key: x.half() if x.is_floating_point() else x for key, x in state.items()}
    ours, _ = load_pretrained(half)
    assert ours.edge_importance["kinectv2_25"][0].shape == (3, 25, 25)


def test_names_unknown_are_given_by_layouts(model, state):
    state = {key.replace("ntu-rgb+d", "sensor"): value for key, value in state.items()}
    with pytest.raises(InputError, match="convention 'sensor' is no known layout: give layouts="):
        load_pretrained(state)
    ours, _ = load_pretrained(state, layouts=["kinectv2_25", "smplx_42", "smpl_24"])
    x = clips(25)
    with torch.no_grad():
        torch.testing.assert_close(
            ours(x, layout="kinectv2_25"), model.features(x, "ntu-rgb+d"), **CLOSE
        )
    with pytest.raises(InputError, match="layouts names 1, .* has 3: sensor, smplx_42, smpl_24"):
        load_pretrained(state, layouts=["kinectv2_25"])


def link_in_padding(state):
    state["A_ntu-rgb+d"] = state["A_ntu-rgb+d"].clone()
    state["A_ntu-rgb+d"][1, 3, 30] = 0.5


def by_channels(state):
    """Norms in the order channel * joints + joint."""
    for kind in ("weight", "bias", "running_mean", "running_var"):
        state[NORM + kind] = state[NORM + kind].view(42, 3).T.flatten()


def other_size(state):
    for kind in ("weight", "bias", "running_mean", "running_var"):
        state[NORM + kind] = state[NORM + kind][:90]


def forget(*keys):
    def change(state):
        for key in keys:
            del state[key]

    return change


def of_another_layout(state):
    state["A_ntu-rgb+d"] = torch.zeros(3, 42, 42, dtype=torch.float64)
    state["A_ntu-rgb+d"][:, :25, :25] = layouts.get("kinectv2_25_pyskl").adjacency()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            link_in_padding,
            r"'ntu-rgb\+d' of 31 joints .padded to 42. .* not .*kinectv2_25' of 25",
        ),
        (by_channels, r"data_bn.ntu-rgb\+d has means other than 0 past the 25 joints"),
        (
            other_size,
            r"data_bn.ntu-rgb\+d has 90 features, wanted 75 for 25 joints of 3 channels or 126",
        ),
        (forget(NORM + "running_mean"), "nothing for input_norm.kinectv2_25.running_mean"),
        (forget("A_ntu-rgb+d"), "of 42 joints .* of 25 .there is no adjacency that"),
        (
            forget(*(f"edge_importance.ntu-rgb+d.{i}" for i in range(10))),
            "nothing for edge_importance.kinectv2_25.0",
        ),
        (forget(NORM + "weight"), r"no 'data_bn.ntu-rgb\+d.weight'"),
        (of_another_layout, r"'ntu-rgb\+d' .* 'kinectv2_25' of 25, but of kinectv2_25_pyskl: give"),
    ],
)
def test_padding_in_use_and_missing_parts_are_refused(change, message, state):
    change(state)
    with pytest.raises(InputError, match=message) as caught:
        load_pretrained(state)
    assert "\n" not in str(caught.value)


def test_a_graph_without_an_input_norm_is_refused(state):
    state = {key: value for key, value in state.items() if not key.startswith(NORM)}
    with pytest.raises(
        InputError, match=r"has 'A_ntu-rgb\+d' but no input norm for it, only data_bn"
    ):
        load_pretrained(state)
