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
from tests.nn.lookalikes import WIDTHS, Encoder, PysklRecognizer, TwoEncoders

NAME = "kinectv2_25"
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def trained(model):
    """In float64 and eval, with every weight and statistic off its first value."""
    model.double().eval()
    for p in model.parameters():
        p.data += 0.2 * torch.randn_like(p)
    for key, buffer in model.named_buffers():
        if key.endswith("running_mean"):
            buffer.normal_(0, 0.3)
        elif key.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return model


def encoder(name=NAME, strategy="spatial", **options):
    torch.manual_seed(0)
    return trained(Encoder(layouts.get(name).adjacency(strategy), **options))


def clips(joints=25, channels=3):
    """Some bodies are absent: those projects count them."""
    x = torch.randn(3, channels, 8, joints, 2, dtype=torch.float64)
    x[1, ..., 1] = 0
    return x


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


def test_layouts_given_stand_for_names_unknown():
    state, models = several("smplx_42", NAME)
    state = {k.replace("smplx_42", "meshes").replace(NAME, "sensor"): v for k, v in state.items()}
    with pytest.raises(InputError, match="unknown layout 'meshes'"):
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


def pyskl(layout=NAME, strategy="spatial", **options):
    torch.manual_seed(0)
    layout = layouts.get(layout) if isinstance(layout, str) else layout
    return trained(PysklRecognizer(layout.adjacency(strategy), **options))


def idle_importance(model, value=1.0):
    """Where the graph is 0 its importance stays at 1, or fades with the weight decay."""
    for block in model.backbone.gcn:
        block.gcn.PA.data[block.gcn.A == 0] = value
    return model


# as pyskl has NTU's 25 joints: the thumb and the tip both hang on the hand
PYSKL_NTU = Layout.from_dict(
    layouts.get(NAME).to_dict()
    | {
        "name": "ntu_of_pyskl",
        "aliases": [],
        "bones": [
            [child, child[0] + "han" if child in ("lhandtip", "rhandtip") else parent]
            for child, parent in layouts.get(NAME).to_dict()["bones"]
        ],
    }
)


@pytest.mark.parametrize(
    ("layout", "strategy", "options"),
    [
        (NAME, "spatial", {"adaptive": "importance"}),
        ("openpose_18", "spatial", {"adaptive": None, "in_channels": 2}),
        (PYSKL_NTU, "spatial", {"adaptive": "importance"}),
    ],
)
def test_pyskls_plain_st_gcn_is_read(layout, strategy, options, tmp_path):
    model = pyskl(layout, strategy, **options)
    if options["adaptive"]:
        idle_importance(model, 0.7)
    torch.save({"meta": {"epoch": 3}, "state_dict": model.state_dict()}, tmp_path / "epoch_3.pth")
    given = [layout] if layout is PYSKL_NTU else None
    ours, unused = load_pretrained(tmp_path / "epoch_3.pth", given)
    assert unused == ("cls_head.fc_cls.weight", "cls_head.fc_cls.bias")
    assert ours.blocks[1].dropout.p == 0
    name = layout.name if layout is PYSKL_NTU else layout
    assert list(ours.layouts) == [name]
    x = clips(ours.layouts[name].num_joints, options.get("in_channels", 3))
    torch.testing.assert_close(ours(x), model.features(x), **CLOSE)


def add_branches(state):
    state["backbone.gcn.3.tcn.branches.0.0.weight"] = torch.zeros(2, 4, 1, 1)


def add_inner_residual(state):
    state["backbone.gcn.0.gcn.down.0.weight"] = torch.zeros(4, 3, 1, 1)


def forget(key):
    return lambda state: state.pop(key)


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({}, add_branches, "block 3 has several temporal branches .tcn_type='mstcn'"),
        ({}, add_inner_residual, "block 0 has a residual within its graph convolution"),
        ({"adaptive": "init"}, None, "block 1 has another graph than block 0 .gcn_adaptive='init'"),
        ({"adaptive": "offset"}, None, "block 0 adds to its graph .gcn_adaptive='offset'"),
        ({"conv_pos": "post"}, None, "gcn_conv_pos='post'"),
        ({"bodies": 2}, None, "data_bn has 150 features for 25 joints of 3 channels"),
        ({"widths": (4,) * 10}, None, "block 4 has width 4, wanted 8"),
        ({"widths": WIDTHS[:9]}, None, "has 9 blocks, wanted 10"),
        ({}, forget("backbone.gcn.5.tcn.bn.weight"), "block 5 has no 'gcn.5.tcn.bn.weight'"),
        ({}, forget("backbone.gcn.5.gcn.A"), "block 5 has no 'gcn.5.gcn.A'"),
        ({}, forget("backbone.gcn.0.gcn.A"), "block 0 has no 'gcn.0.gcn.A'"),
    ],
)
def test_others_of_pyskls_family_are_refused_with_the_difference(options, change, message):
    model = pyskl(**options)
    if options.get("adaptive", "importance") == "importance":
        idle_importance(model)
    state = dict(model.state_dict())
    if change is not None:
        change(state)
    with pytest.raises(InputError, match=message) as caught:
        load_pretrained(state)
    assert "\n" not in str(caught.value)


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
        (wrong(unlike_graph), "is of no known layout, candidates are h36m_25,"),
        (lambda: {"conv1.weight": torch.zeros(1)}, "the keys are conv1.weight, …: not an ST-GCN"),
        (lambda: {}, "the keys are none"),
    ],
)
def test_other_networks_are_refused_with_the_reason(state, message):
    with pytest.raises(InputError, match=message):
        load_pretrained(state())


def test_a_layout_given_must_have_the_graph():
    state = encoder().state_dict()
    with pytest.raises(InputError, match="is not that of layout 'h36m_25'"):
        load_pretrained(state, layouts=["h36m_25"])
    with pytest.raises(InputError, match="layouts names 2, but the checkpoint has 1"):
        load_pretrained(state, layouts=[NAME, "smplx_42"])


def test_several_encoders_without_a_query_encoder_are_named():
    state = encoder().state_dict()
    both = {prefix + key: v for prefix in ("joint.", "bone.") for key, v in state.items()}
    with pytest.raises(InputError, match=r"several encoders, 'joint\.', 'bone\.'"):
        load_pretrained(both)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="no checkpoint at"):
        load_pretrained(tmp_path / "none.pt")
    (tmp_path / "torn.pt").write_bytes(b"PK\3\4 torn")
    with pytest.raises(InputError, match="cannot be read"):
        load_pretrained(str(tmp_path / "torn.pt"))
    torch.save(torch.zeros(1), tmp_path / "tensor.pt")
    with pytest.raises(InputError, match="holds a Tensor, wanted a state_dict"):
        load_pretrained(tmp_path / "tensor.pt")
