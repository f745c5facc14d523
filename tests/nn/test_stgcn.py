"""STGCN over several layouts: each gets what it would get alone; statistics are of real joints."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from msclr import layouts
from msclr.nn import STGCN, BatchNorm, STGCNBlock
from tests.nn.lookalikes import trained

A, B = "kinectv2_25", "smplx_42"
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def clips(name, n=3, frames=8, bodies=2, seed=0):
    """(N, 3, T, V, M) in float64, every body present."""
    g = torch.Generator().manual_seed(seed)
    v = layouts.get(name).num_joints
    return torch.randn(n, 3, frames, v, bodies, generator=g, dtype=torch.float64)


def encoder(*names, **options):
    """A narrow encoder in float64 whose every weight and statistic is off its first value."""
    torch.manual_seed(0)
    return trained(STGCN(list(names), 4, 8, **({"dropout": 0.0} | options)))


def with_weights_of(model, *names, **options):
    """An encoder of some of the layouts, with the shared and those layouts' own weights."""
    single = encoder(*names, **options)
    weights = model.state_dict()
    single.load_state_dict({key: weights[key] for key in single.state_dict()})
    return single


def recording(model, run):
    """What run() returns, and the last block's output by layout, in the order of the dict."""
    maps = []
    hook = model.blocks[-1].register_forward_hook(lambda m, args, out: maps.extend(out[0].groups()))
    result = run()
    hook.remove()
    return result, maps


@pytest.mark.parametrize("padding", ["none", "paper"])
def test_eval_of_two_layouts_is_joint_for_joint_that_of_each_alone(padding):
    both = encoder(A, B, padding=padding)
    x = {A: clips(A, n=3), B: clips(B, n=2, frames=12, seed=1)}
    x = x if padding == "none" else {**x, B: clips(B, n=2, seed=1)}  # one T where padded
    features, maps = recording(both, lambda: both(x))
    assert list(features) == [A, B]
    if padding == "paper":  # one batch of 42 joints: take it apart
        maps = [maps[0][:6, ..., :25], maps[0][6:]]
    for name, feature_map in zip(x, maps, strict=True):
        alone = with_weights_of(both, name)
        wanted, wanted_map = recording(alone, lambda alone=alone, name=name: alone(x[name]))
        torch.testing.assert_close(feature_map, wanted_map[0], **EXACT)
        torch.testing.assert_close(features[name], wanted, **EXACT)
        torch.testing.assert_close(both(x[name], layout=name), wanted, **EXACT)
        pooled = feature_map.mean(dim=(2, 3)).unflatten(0, (-1, 2)).mean(1)
        torch.testing.assert_close(features[name], pooled, **EXACT)
    assert [m.shape[3] for m in maps] == [25, 42]


def run_and_check_statistics(model, x, pad_to=None):
    """Each BatchNorm's statistics against mean and variance by hand over what went into it."""
    before = {key: value.clone() for key, value in model.named_buffers()}
    seen, gcn = {}, []
    norms = {n: m for n, m in model.named_modules() if isinstance(m, BatchNorm)}
    hooks = [
        m.register_forward_pre_hook(lambda m, args, n=n: seen.update({n: args[0]}))
        for n, m in norms.items()
    ]
    hooks += [model.blocks[0].gcn.register_forward_hook(lambda m, a, out: gcn.append(out[0]))]
    model.train()(x)
    for hook in hooks:
        hook.remove()
    assert len(norms) == 23, "two a block, and one more in blocks 5, 8 and 10"
    assert [g.shape[3] for g in gcn] == ([pad_to] if pad_to else [25, 42])
    tracks, frames = sum(len(g) * g.shape[3] for g in gcn), gcn[0].shape[2]
    by_hand = torch.cat([g.permute(0, 2, 3, 1).flatten(0, 2) for g in gcn])
    for name, rows in {**seen, "blocks.0.gcn_norm": by_hand}.items():  # (R, C)
        assert len(rows) in [tracks * frames // stride for stride in (1, 2, 4)]
        for key, batch in (("running_mean", rows.mean(0)), ("running_var", rows.var(0))):
            key = f"{name}.{key}"
            wanted = 0.9 * before[key] + 0.1 * batch
            torch.testing.assert_close(dict(model.named_buffers())[key], wanted, **EXACT)
    return gcn


def test_train_statistics_are_over_the_real_joints_of_both_layouts_only():
    model = encoder(A, B)
    x = {A: clips(A, n=3), B: clips(B, n=2, seed=1)}
    x[A][1, ..., 1] = 0  # an absent body
    first = run_and_check_statistics(model, x)
    assert [g.shape for g in first] == [(5, 4, 8, 25), (4, 4, 8, 42)]


def test_paper_padding_has_the_padded_joints_in_its_statistics():
    x = {A: clips(A, n=3), B: clips(B, n=2, seed=1)}
    paper, ours = encoder(A, B, padding="paper"), encoder(A, B)
    torch.testing.assert_close(paper(x), ours(x), **EXACT)  # eval is the same
    first = run_and_check_statistics(paper, x, pad_to=42)
    assert first[0].shape == (10, 4, 8, 42) and (first[0][:6, ..., 25:] == 0).all()
    ours.train()(x)
    name = "blocks.0.gcn_norm.running_var"
    assert not torch.allclose(paper.state_dict()[name], ours.state_dict()[name], rtol=1e-3)


def test_train_mode_of_one_layout_alone_is_not_that_of_both():
    model = encoder(A, B).train()
    x = {A: clips(A), B: 3 * clips(B, seed=1)}
    assert not torch.allclose(model(x)[A], model(x[A], layout=A), rtol=1e-3)


@pytest.mark.parametrize("train", [False, True])
def test_absent_bodies_are_not_computed_and_change_nothing(train):
    x = clips(A, bodies=1)
    with_absent = torch.cat([torch.zeros_like(x), x, torch.zeros_like(x)], dim=4)
    features, maps = recording(model := encoder(A).train(train), lambda: model(with_absent))
    assert maps[0].shape[0] == 3
    wanted, same = encoder(A).train(train), encoder(A).train(train)
    torch.testing.assert_close(features, wanted(x), **EXACT)
    torch.testing.assert_close(model.state_dict(), wanted.state_dict(), **EXACT)
    mask = torch.tensor([[False, True, False]] * 3)
    torch.testing.assert_close(same(with_absent, bodies=mask), features, **EXACT)


def test_a_clips_feature_is_the_mean_over_its_present_bodies():
    model, x = encoder(A), clips(A, n=4)
    x[0, ..., 0] = 0
    x[2, ..., 1] = 0
    x[3] = 0  # nobody at all
    features = model(x)
    one_by_one = [[model(x[n : n + 1, ..., m : m + 1])[0] for m in range(2)] for n in range(4)]
    wanted = [one_by_one[0][1], sum(one_by_one[1]) / 2, one_by_one[2][0]]
    torch.testing.assert_close(features[:3], torch.stack(wanted), **EXACT)
    assert (features[3] == 0).all()
    explicit = model({A: x}, bodies={A: x.flatten(1, 3).any(1)})
    torch.testing.assert_close(explicit[A], features, **EXACT)


@pytest.mark.parametrize("train", [False, True])
def test_a_batch_without_any_body_gives_features_0(train):
    model = encoder(A, B).train(train)
    absent = torch.zeros_like(clips(A))
    assert (model(absent, layout=A) == 0).all()
    assert all(b.isfinite().all() for b in model.buffers())
    x = clips(B)
    features, dropped = model({A: absent, B: x}, drop=True)
    assert (features[A] == 0).all() and (dropped[A] == 0).all()
    torch.testing.assert_close(features[B], model(x, layout=B), **EXACT)


def test_bodies_all_counts_the_absent_as_the_papers_do():
    x = clips(A)
    x[:, ..., 1] = 0
    model = encoder(A, bodies="all")
    features, maps = recording(model, lambda: model(x))
    assert maps[0].shape[0] == 6
    present = encoder(A)
    zeros = torch.zeros_like(x[..., :1])
    body, nobody = present(x[..., :1]), model(zeros)
    torch.testing.assert_close(features, (body + nobody) / 2, **EXACT)
    assert nobody.abs().max() > 1e-3


def test_names_and_aliases_lead_to_the_same_layout():
    model, x = encoder("ntu-rgb+d", B), clips(A)
    assert list(model.layouts) == [A, B]
    wanted = model(x, layout=A)
    assert torch.is_tensor(wanted) and wanted.shape == (3, 8)
    torch.testing.assert_close(model(x, layout="NTU-RGB+D"), wanted, **EXACT)
    torch.testing.assert_close(model({"ntu-rgb+d": x}), {A: wanted}, **EXACT)
    torch.testing.assert_close(encoder(A)(x), encoder(A)(x, layout=A), **EXACT)


def test_an_explicit_mask_is_found_by_an_alias_too():
    model, x = encoder(A), clips(A)
    mask = torch.tensor([[True, False]] * 3)
    found = model({"ntu-rgb+d": x}, bodies={"ntu-rgb+d": mask})[A]
    torch.testing.assert_close(found, model(x[..., :1]), **EXACT)


def test_drop_gives_a_pair_and_leaves_the_features_alone():
    model, x = encoder(A, B), {A: clips(A), B: clips(B)}
    features, dropped = model(x, drop=True)
    torch.testing.assert_close(features, model(x), **EXACT)
    assert list(dropped) == [A, B] and not torch.allclose(dropped[A], features[A])
    single, single_dropped = model(x[A], layout=A, drop=True)
    assert single.shape == single_dropped.shape == (3, 8)


@pytest.mark.parametrize(("frames", "left"), [(50, 13), (8, 2), (7, 2), (1, 1)])
def test_two_strides_leave_a_quarter_of_the_frames(frames, left):
    model = encoder(A)
    _, maps = recording(model, lambda: model(clips(A, n=1, frames=frames)))
    assert maps[0].shape == (2, 8, left, 25)


def test_a_block_is_its_formula():
    torch.manual_seed(0)
    block = STGCNBlock(2, 4, stride=2).double().eval()
    x, graph = torch.randn(3, 2, 8, 5).double(), torch.rand(3, 5, 5).double()

    def normed(norm, h):
        return F.batch_norm(h, norm.running_mean, norm.running_var, norm.weight, norm.bias)

    h = normed(block.gcn_norm, block.gcn(x, graph)[0]).relu()
    shortcut = block.residual.conv
    strided = F.conv2d(x, shortcut.weight, shortcut.bias, stride=(2, 1))
    h = normed(block.tcn_norm, block.tcn(h)) + normed(block.residual.norm, strided)
    y, returned = block(x, graph)
    torch.testing.assert_close(y, h.relu(), **EXACT)
    assert returned is graph


def test_training_runs_under_autocast():
    model = encoder(A, B, dropout=0.5).float().train()
    with torch.autocast("cpu", torch.bfloat16):
        features, dropped = model({A: clips(A).float(), B: clips(B).float()}, drop=True)
    assert {f.dtype for f in (*features.values(), *dropped.values())} == {torch.float32}
    sum(f.square().sum() for f in (*features.values(), *dropped.values())).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name
