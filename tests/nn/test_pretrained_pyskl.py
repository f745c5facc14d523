"""load_pretrained: the plain ST-GCN of pyskl and mmaction2, and what is another network."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from msclr import layouts
from msclr.errors import InputError
from msclr.nn.pretrained import load_pretrained
from tests.nn.lookalikes import WIDTHS, PysklRecognizer, clips, trained

NAME = "kinectv2_25"
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def pyskl(graph=None, **options):
    torch.manual_seed(0)
    graph = layouts.get(NAME).adjacency() if graph is None else graph
    return trained(PysklRecognizer(graph, **options))


def idle_importance(model, value=1.0):
    """Where the graph is 0 its importance stays at 1, or fades with the weight decay."""
    for block in model.backbone.gcn:
        block.gcn.PA.data[block.gcn.A == 0] = value
    return model


def of_mode_spatial(layout):
    """(3, V, V): the graph of pyskl's mode="spatial", entry by entry.

    Self links; to each joint from its parent; to each joint from its children, their mean.
    """
    children = Counter(parent for _, parent in layout.bone_indices)
    graph = torch.zeros(3, layout.num_joints, layout.num_joints)
    graph[0] = torch.eye(layout.num_joints)
    for child, parent in layout.bone_indices:
        graph[1, parent, child] = 1
        graph[2, child, parent] = 1 / children[parent]
    return graph


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        (NAME, "stgcn_spatial", {"adaptive": "importance"}),
        ("openpose_18", "stgcn_spatial", {"adaptive": None, "in_channels": 2}),
        ("kinectv2_25_pyskl", "stgcn_spatial", {"adaptive": "importance"}),
        ("kinectv2_25_pyskl", "spatial", {"adaptive": "importance"}),
        ("coco_17", "spatial", {"adaptive": None}),
    ],
)
def test_pyskls_plain_st_gcn_is_read(name, mode, options, tmp_path):
    layout = layouts.get(name)
    model = pyskl(of_mode_spatial(layout) if mode == "spatial" else layout.adjacency(), **options)
    if options["adaptive"]:
        idle_importance(model, 0.7)
    torch.save({"meta": {"epoch": 3}, "state_dict": model.state_dict()}, tmp_path / "epoch_3.pth")
    ours, unused = load_pretrained(tmp_path / "epoch_3.pth")
    assert unused == ("cls_head.fc_cls.weight", "cls_head.fc_cls.bias")
    assert ours.blocks[1].dropout.p == 0
    assert ours.strategy == ("directed" if mode == "spatial" else "spatial")
    assert list(ours.layouts) == [name]
    x = clips(layout.num_joints, options.get("in_channels", 3))
    torch.testing.assert_close(ours(x), model.features(x), **CLOSE)


def add_branches(state):
    state["backbone.gcn.3.tcn.branches.0.0.weight"] = torch.zeros(2, 4, 1, 1)


def add_inner_residual(state):
    state["backbone.gcn.0.gcn.down.0.weight"] = torch.zeros(4, 3, 1, 1)


def add_attention(state):
    state["backbone.gcn.6.attention.weight"] = torch.zeros(8, 8)


def forget(key):
    return lambda state: state.pop(key)


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({}, add_branches, "block 3 has several temporal branches .tcn_type='mstcn'"),
        ({}, add_inner_residual, "block 0 has a residual within its graph convolution"),
        ({}, add_attention, "block 6 has 'gcn.6.attention.weight'"),
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
