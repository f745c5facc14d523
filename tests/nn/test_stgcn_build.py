"""How an STGCN is built: its weights and their names, further layouts, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from msclr import layouts
from msclr.layouts import Layout
from msclr.nn import STGCN

A, B = "kinectv2_25", "smplx_42"
ROBOT = Layout("nn_test_robot", ["hip", "head", "hand"], [["head", "hip"], ["hand", "hip"]], "hip")


def clips(name):
    """(N, 3, T, V, M) with three clips of two bodies."""
    return torch.randn(3, 3, 8, layouts.get(name).num_joints, 2)


def encoder(*names):
    """A narrow one with weights so large that features tell."""
    torch.manual_seed(0)
    model = STGCN(list(names), 4, 8).eval()
    for p in model.parameters():
        p.data += 0.2 * torch.randn_like(p)
    return model


def test_weights_begin_as_in_st_gcn():
    torch.manual_seed(0)
    model = STGCN([A, B])
    kinds = {"conv": [], "norm": [], "bias": []}
    for name, p in model.named_parameters():
        if not name.startswith("edge_importance"):
            kind = "bias" if name.endswith("bias") else "norm" if "norm" in name else "conv"
            kinds[kind].append(p.detach().flatten())
    conv, norm, bias = (torch.cat(k) for k in kinds.values())
    assert abs(conv.mean()) < 1e-3 and conv.std() == pytest.approx(0.02, rel=0.02)
    assert norm.mean() == pytest.approx(1, abs=5e-3) and norm.std() == pytest.approx(0.02, rel=0.1)
    assert (bias == 0).all()
    assert all((p == 1).all() for p in model.edge_importance.parameters())


def test_widths_strides_and_residuals_are_those_of_the_papers():
    model = STGCN([A])
    blocks = list(model.blocks)
    assert [b.tcn.out_channels for b in blocks] == [16] * 4 + [32] * 3 + [64] * 2 + [256]
    assert [b.tcn.stride[0] for b in blocks] == [1, 1, 1, 1, 2, 1, 1, 2, 1, 1]
    assert {(b.tcn.kernel_size, b.tcn.padding) for b in blocks} == {((9, 1), (4, 0))}
    assert [b.dropout.p for b in blocks] == [0.0] + [0.5] * 9
    assert [b.residual is not None for b in blocks] == [False] + [True] * 9
    convolved = [i for i, b in enumerate(blocks) if b.residual and b.residual.conv is not None]
    assert convolved == [4, 7, 9]


def test_the_names_of_the_weights_are_stable():
    keys = set(STGCN([A, B]).state_dict())
    assert keys >= {
        "input_norm.kinectv2_25.weight",
        "input_norm.smplx_42.running_var",
        "edge_importance.kinectv2_25.0",
        "edge_importance.smplx_42.9",
        "blocks.0.gcn.conv.weight",
        "blocks.0.gcn_norm.running_mean",
        "blocks.4.residual.conv.weight",
        "blocks.4.residual.norm.bias",
        "blocks.9.tcn.bias",
        "blocks.9.tcn_norm.num_batches_tracked",
    }
    assert not any("adjacency" in key for key in keys)
    with_residual = 7 * 3  # blocks 5, 8 and 10: a convolution's two and a norm's five
    assert len(keys) == 2 * (5 + 10) + 10 * (2 + 5 + 2 + 5) + with_residual


def test_a_layout_unseen_in_pretraining_joins_with_its_own_norm_and_graph():
    model, x = encoder(A), clips(A)
    before = model(x)
    assert before.abs().max() > 0.1
    model.add_layout(ROBOT)
    torch.testing.assert_close(model(x, layout=A), before)
    assert model(torch.randn(2, 3, 8, 3, 1), layout=ROBOT.name).shape == (2, 8)
    importance = model.edge_importance[ROBOT.name]
    assert [tuple(p.shape) for p in importance] == [(3, 3, 3)] * 10
    assert all((p == 1).all() for p in importance)
    assert model.input_norm[ROBOT.name].num_features == 9


@pytest.mark.parametrize("place", [torch.float64, "meta"])
def test_a_layout_that_joins_takes_the_mode_and_the_place_of_the_encoder(place):
    model = encoder(A).to(place)
    parts = [*model.parameters(), *model.buffers()]
    before = {(x.dtype, x.device) for x in parts}
    model.add_layout(ROBOT)
    assert not model.input_norm[ROBOT.name].training
    now = [*model.parameters(), *model.buffers()]
    assert len(now) > len(parts) and {(x.dtype, x.device) for x in now} == before


@pytest.mark.parametrize(
    ("message", "run"),
    [
        ("layout must be given", lambda m: m(clips(A))),
        ("unknown layout 'kinect9'", lambda m: m(clips(A), layout="kinect9")),
        ("'lsp_14' is not one of the encoder's", lambda m: m(clips("lsp_14"), layout="lsp_14")),
        (r"x of layout 'smplx_42' must be \(N, 3, T, 42, M\)", lambda m: m(clips(A), layout=B)),
        (r"x of layout 'kinectv2_25' must be", lambda m: m(clips(A)[..., 0], layout=A)),
        (r"x of layout 'kinectv2_25' must be", lambda m: m({A: clips(A)[:, :2]})),
        ("bodies", lambda m: m(clips(A), layout=A, bodies=torch.ones(2, 3, dtype=torch.bool))),
        ("bodies", lambda m: m(clips(A), layout=A, bodies=torch.ones(3, 1, dtype=torch.bool))),
        ('bodies must be "present" or "all"', lambda m: STGCN([A], bodies="some")),
        ('padding must be "none" or "paper"', lambda m: STGCN([A], padding="zeros")),
        ("'kinectv2_25' twice", lambda m: STGCN([A, "ntu-rgb+d"])),
        ("layouts", lambda m: STGCN([])),
        ("unknown adjacency strategy", lambda m: STGCN([A], strategy="random")),
    ],
)
def test_a_wrong_call_says_what_was_wrong(message, run):
    model = encoder(A, B)
    with pytest.raises(ValueError, match=message):
        run(model)
