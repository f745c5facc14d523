"""load_pretrained: encoders of other projects by their key names, and of this library's runs."""

from __future__ import annotations

import pytest
import torch

from msclr import layouts
from msclr.errors import InputError
from msclr.layouts import Layout
from msclr.methods import METHODS
from msclr.nn import STGCN
from msclr.nn.pretrained import load_pretrained
from tests.nn.lookalikes import WIDTHS, Encoder, TwoEncoders, clips, trained

NAME = "kinectv2_25"
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def encoder(name=NAME, strategy="spatial", **options):
    torch.manual_seed(0)
    return trained(Encoder(layouts.get(name).adjacency(strategy), **options))


@pytest.mark.parametrize("prefix", ["", "module.", "encoder_q.", "module.encoder_q.", "backbone."])
def test_features_are_those_of_the_model_under_any_prefix(prefix, tmp_path):
    model, x = encoder(), clips()
    state = {prefix + key: value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state} if prefix == "backbone." else state, tmp_path / "weights.pt")
    ours, unused = load_pretrained(tmp_path / "weights.pt")
    assert unused == (f"{prefix}fc.weight", f"{prefix}fc.bias")
    assert list(ours.layouts) == [NAME] and not ours.training
    torch.testing.assert_close(ours(x), model.features(x), **CLOSE)


def test_of_two_encoders_the_query_encoder_is_read():
    model = trained(TwoEncoders(layouts.get(NAME).adjacency()))
    ours, unused = load_pretrained(model.state_dict())
    x = clips()
    torch.testing.assert_close(ours(x), model.encoder_q.features(x), **CLOSE)
    wanted = {"queue", "encoder_q.fc.weight", "encoder_q.fc.bias"}
    wanted |= {k for k in model.state_dict() if k.startswith("encoder_k.")}
    assert set(unused) == wanted


@pytest.mark.parametrize(
    ("name", "strategy", "options"),
    [
        ("h36m_25", "spatial", {}),
        ("coco_19", "spatial_true", {}),
        ("kinectv2_25_kinect", "uniform", {}),
        ("smplx_42", "distance", {"in_channels": 2}),
        ("kinectv1_20", "spatial", {"importance": False}),
        ("h36m_17", "spatial", {"widths": (*WIDTHS[:-1], WIDTHS[-2])}),
    ],
)
def test_layout_graph_and_widths_follow_from_the_weights(name, strategy, options):
    model = encoder(name, strategy, **options)
    ours, _ = load_pretrained(model.state_dict())
    assert list(ours.layouts) == [name]
    x = clips(layouts.get(name).num_joints, options.get("in_channels", 3))
    torch.testing.assert_close(ours(x), model.features(x), **CLOSE)


def several(*names):
    """A state_dict with the input norm and the importance of each name, and a model for each."""
    models, state = {}, {}
    for name in names:
        models[name] = encoder(name)
        own = ("data_bn.", "edge_importance.")
        shared = {
            k: v for k, v in models[name].state_dict().items() if not k.startswith((*own, "A"))
        }
        state = state or shared
        models[name].load_state_dict(state, strict=False)
        for key, value in models[name].state_dict().items():
            if key.startswith(own):
                state[key.replace(".", f".{name}.", 1)] = value
    return state, models


def test_an_encoder_of_several_layouts_is_read_by_their_names():
    state, models = several("smplx_42", NAME)
    for key in list(state):  # an alias names a layout as well
        state[key.replace(f".{NAME}.", ".ntu-rgb+d.")] = state.pop(key)
    ours, unused = load_pretrained(state)
    assert list(ours.layouts) == ["smplx_42", NAME] and unused == ("fc.weight", "fc.bias")
    for name, model in models.items():
        x = clips(layouts.get(name).num_joints)
        torch.testing.assert_close(ours(x, layout=name), model.features(x), **CLOSE)


def test_given_layouts_replace_unknown_names():
    state, models = several("smplx_42", NAME)
    state = {k.replace("smplx_42", "meshes").replace(NAME, "sensor"): v for k, v in state.items()}
    with pytest.raises(InputError, match="convention 'meshes' is no known layout: give layouts="):
        load_pretrained(state)
    ours, _ = load_pretrained(state, layouts=["smplx_42", layouts.get(NAME)])
    x = clips(42)
    torch.testing.assert_close(ours(x, layout="smplx_42"), models["smplx_42"].features(x), **CLOSE)


def without_graph(state):
    return {key: value for key, value in state.items() if key != "A"}


def test_without_a_graph_the_layout_must_be_given():
    model = encoder()
    with pytest.raises(InputError, match="candidates are h36m_25, kinectv2_25, kinectv2_25_kinect"):
        load_pretrained(without_graph(model.state_dict()))
    ours, _ = load_pretrained(without_graph(model.state_dict()), layouts=[NAME])
    x = clips()
    torch.testing.assert_close(ours(x), model.features(x), **CLOSE)


def test_layouts_of_one_graph_are_ambiguous(monkeypatch):
    twin = Layout.from_dict(layouts.get(NAME).to_dict() | {"name": "twin", "aliases": []})
    known = {name: layouts.get(name) for name in layouts.names()} | {"twin": twin}
    monkeypatch.setattr(layouts, "get", known.get)
    monkeypatch.setattr(layouts, "names", lambda: sorted(known))
    state = encoder().state_dict()
    with pytest.raises(InputError, match="candidates are kinectv2_25, twin"):
        load_pretrained(state)
    assert list(load_pretrained(state, layouts=["twin"]).encoder.layouts) == ["twin"]


def test_a_run_of_this_library_is_read_back(tmp_path):
    torch.manual_seed(0)
    own = STGCN([NAME, "h36m_17"], 2, 8, bodies="present", dropout=0.25)
    method = METHODS["aimclr"](own, embedding_dim=4, queue_size=6)
    trained(own)
    state = {
        "format": 1,
        "recipe": {"bodies": "present", "padding": "none", "dropout": 0.25, "lr": 0.1},
        "layouts": {name: layout.to_dict() for name, layout in own.layouts.items()},
        "method": method.state_dict(),
    }
    torch.save(state, tmp_path / "checkpoint.pt")
    ours, unused = load_pretrained(tmp_path / "checkpoint.pt")
    assert (ours.bodies, ours.blocks[1].dropout.p) == ("present", 0.25)
    assert unused and not any(key.startswith("query.encoder.") for key in unused)
    assert {key.split(".")[0] for key in unused} >= {"key", "query"}
    x = {NAME: clips(), "h36m_17": clips(17)}
    torch.testing.assert_close(ours(x), own(x), rtol=0, atol=0)
    with pytest.raises(InputError, match="leave layouts out"):
        load_pretrained(state, layouts=[NAME])
    with pytest.raises(InputError, match="of format 2 of this library, this version reads 1"):
        load_pretrained(state | {"format": 2})


def wrong(change):
    def changed():
        state = dict(encoder().state_dict())
        change(state)
        return state

    return changed


def unlike_graph(state):
    state["A"] = state["A"].flip(1)


def extra_block(state):
    state["st_gcn_networks.10.gcn.conv.weight"] = torch.zeros(12, 12, 1, 1)


def short_kernel(state):
    state["st_gcn_networks.3.tcn.2.weight"] = torch.zeros(4, 4, 5, 1)


def strided(state):
    state["st_gcn_networks.2.residual.0.weight"] = torch.zeros(4, 4, 1, 1)


def with_attention(state):
    state["st_gcn_networks.3.attention.weight"] = torch.zeros(4, 4)


def quantised(state):
    state["st_gcn_networks.3.tcn.2.weight"] = torch.zeros(4, 4, 9, 1, dtype=torch.int8)


def flat(state):
    state["st_gcn_networks.3.tcn.2.weight"] = torch.zeros(4)


def of_widths(*widths):
    return lambda: encoder(widths=widths).state_dict()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (of_widths(4, 4, 4, 8, 8, 8, 8, 16, 16, 12), "block 3 has width 8, wanted 4"),
        (of_widths(4, 4, 4, 4, 8, 8, 8, 8, 8, 8), "block 7 has width 8, wanted 16"),
        (wrong(extra_block), "has 11 blocks, wanted 10"),
        (wrong(short_kernel), "block 3 has a temporal kernel of 5, wanted 9"),
        (wrong(strided), "block 2 has a convolution in its residual"),
        (
            wrong(lambda s: s.pop("st_gcn_networks.7.residual.0.weight")),
            "block 7 has no convolution",
        ),
        (
            wrong(lambda s: s.pop("st_gcn_networks.5.tcn.0.weight")),
            r"no .st_gcn_networks.5.tcn.0.weight.: block 5",
        ),
        (wrong(lambda s: s.pop("st_gcn_networks.5.tcn.0.bias")), "blocks.5.gcn_norm.bias"),
        (wrong(lambda s: s.pop("data_bn.weight")), "data_bn.weight"),
        (wrong(lambda s: s.update({"edge_importance.2": torch.ones(3, 9, 9)})), "shape .3, 9, 9."),
        (wrong(lambda s: s.pop("edge_importance.2")), "nothing for edge_importance.kinectv2_25.2"),
        (wrong(with_attention), "st_gcn_networks.3.attention.weight., which no block of ST-GCN's"),
        (wrong(quantised), "torch.int8 for blocks.3.tcn.weight, wanted torch.float64"),
        (wrong(flat), "st_gcn_networks.3.tcn.2.weight has shape .4,., wanted 4 dimensions"),
        (wrong(lambda s: s.update({"A": s["A"][0]})), "adjacency has shape .25, 25., wanted"),
        (wrong(lambda s: s.update({"data_bn.weight": torch.ones(9)})), "data_bn has 9 features"),
        (wrong(unlike_graph), "is of no known layout, candidates are h36m_25,"),
        (lambda: {"conv1.weight": torch.zeros(1)}, "holds conv1.weight: .*so it has no ST-GCN"),
        (lambda: {}, "holds nothing: "),
    ],
)
def test_other_networks_are_refused_with_the_reason(state, message):
    with pytest.raises(InputError, match=message) as caught:
        load_pretrained(state())
    assert "\n" not in str(caught.value)


def test_a_layout_given_must_have_the_graph():
    state = encoder().state_dict()
    with pytest.raises(InputError, match="is not that of layout 'h36m_25'"):
        load_pretrained(state, layouts=["h36m_25"])
    with pytest.raises(InputError, match="layouts names 2, but the checkpoint has 1"):
        load_pretrained(state, layouts=[NAME, "smplx_42"])
    with pytest.raises(InputError, match="'kinectv2_25_pyskl' of 25, but of kinectv2_25: give"):
        load_pretrained(state, layouts="kinectv2_25_pyskl")


def test_several_encoders_without_a_query_encoder_are_named():
    state = encoder().state_dict()
    both = {prefix + key: v for prefix in ("joint.", "bone.") for key, v in state.items()}
    with pytest.raises(InputError, match=r"several encoders, 'joint\.', 'bone\.'"):
        load_pretrained(both)


def test_sources_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InputError, match=f"no checkpoint at {tmp_path}/none.pt"):
        load_pretrained("~/none.pt")
    torch.save(torch.zeros(1), tmp_path / "tensor.pt")
    with pytest.raises(InputError, match="holds a Tensor, wanted a state_dict"):
        load_pretrained(tmp_path / "tensor.pt")
    torch.save(encoder(), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"a whole pickled model .*save the model's state_dict"):
        load_pretrained(tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"source is a Encoder, .*give its state_dict\(\)"):
        load_pretrained(encoder())
    with pytest.raises(InputError, match="source is a NoneType, wanted the path"):
        load_pretrained(None)
