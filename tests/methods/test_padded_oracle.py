"""The oracle itself: its parts against PyTorch's own, its gradients against finite differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.methods.padded_aimclr import (
    Views,
    attention_guided_drop,
    contrast_loss,
    embed,
    enqueue,
    fresh_running,
    padded_step,
    plain_padded_features,
    random_state,
)
from tests.methods.padded_encoder import Encoder, batch_norm, feature_maps, temporal_conv

# Of the three residuals one is the identity, one strides, one widens.
CHANNELS, STRIDES, DIM = [4, 4, 4, 6], [1, 1, 2, 1], 5
FRAMES, BODIES, TEMPERATURE = 7, 2, 0.2


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def chain(joints: int) -> torch.Tensor:
    """A chain of joints in three partitions: self links, down, up (3, J, J)."""
    adjacency = torch.zeros(3, joints, joints, dtype=torch.float64)
    adjacency[0] = torch.eye(joints)
    for joint in range(joints - 1):
        adjacency[1, joint, joint + 1] = 0.5
        adjacency[2, joint + 1, joint] = 0.25
    return adjacency


LAYOUTS = {"small": chain(3), "big": chain(5), "idle": chain(6)}
QUERY_LAYOUTS, KEY_LAYOUTS = ["small", "big", "small"], ["big", "big", "small"]


def clips(layouts: list[str], seed: int) -> list[torch.Tensor]:
    source = generator(seed)
    shapes = [(3, FRAMES, LAYOUTS[name].shape[-1], BODIES) for name in layouts]
    return [torch.randn(*shape, dtype=torch.float64, generator=source) for shape in shapes]


def arguments(mining: bool = False) -> dict:
    """A batch of mixed layouts and pairs; the layout `idle` pads, yet has no clip."""
    query = random_state(LAYOUTS, CHANNELS, STRIDES, DIM, generator(1))
    return {
        "query": query,
        "key": random_state(LAYOUTS, CHANNELS, STRIDES, DIM, generator(2)),
        "running_q": fresh_running(query),
        "running_k": fresh_running(query),
        "adjacency": LAYOUTS,
        "strides": STRIDES,
        "views": Views(
            normal=clips(QUERY_LAYOUTS, 3),
            extreme=clips(QUERY_LAYOUTS, 4),
            keys=clips(KEY_LAYOUTS, 5),
            query_layouts=QUERY_LAYOUTS,
            key_layouts=KEY_LAYOUTS,
        ),
        "queue": F.normalize(randn(8, DIM, seed=6)),
        "pointer": 6,
        "momentum": 0.9,
        "temperature": TEMPERATURE,
        "mining": mining,
    }


def loss_with_constants(step, constants, queue: torch.Tensor, mining: bool) -> torch.Tensor:
    """The loss of `step`'s q, e, d; keys, teacher and positives are those of `constants`."""

    def log_probabilities(x):
        logits = torch.cat([torch.einsum("be,be->b", x, constants.k)[:, None], x @ queue.T], 1)
        return F.log_softmax(logits / TEMPERATURE, 1)

    weights = torch.zeros(len(step.q), 1 + len(queue), dtype=torch.float64)
    weights[:, 0] = 1
    if mining:
        for x in (constants.q, constants.e, constants.d):
            weights.scatter_(1, 1 + (x @ queue.T).argmax(1, keepdim=True), 1)
    weights /= weights.sum(1, keepdim=True)
    teacher = log_probabilities(constants.q).exp()
    targets = ((step.q, weights), (step.e, teacher / 2), (step.d, teacher / 2))
    return sum(-(p * log_probabilities(x)).sum(1).mean() for x, p in targets)


def test_gradients_are_the_slopes_of_the_loss():
    args = arguments(mining=True) | {"momentum": 1.0}  # keys stay the same while the query moves
    here = padded_step(**args)
    torch.testing.assert_close(
        here.loss, loss_with_constants(here, here, args["queue"], mining=True), rtol=1e-12, atol=0
    )
    assert set(here.grads) == set(args["query"])
    h = 1e-6
    for seed, (name, value) in enumerate(args["query"].items()):
        direction = randn(*value.shape, seed=100 + seed)
        ahead, behind = (
            loss_with_constants(
                padded_step(**args | {"query": args["query"] | {name: value + sign * direction}}),
                here,
                args["queue"],
                mining=True,
            )
            for sign in (h, -h)
        )
        slope = (here.grads[name] * direction).sum()
        # Worst seen: 2e-9, on slopes of up to 7.
        torch.testing.assert_close(
            slope, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-8, msg=name
        )


def test_parameters_out_of_use_get_zero_gradient():
    step = padded_step(**arguments())
    for name, grad in step.grads.items():
        if "idle" in name:
            assert grad.count_nonzero() == 0, name
        elif name.startswith("edge_importance"):
            support = LAYOUTS[name.split(".")[1]] != 0
            assert grad[~support].count_nonzero() == 0 and grad[support].all(), name


def test_order_of_the_clips_changes_nothing():
    args, order = arguments(mining=True), [2, 0, 1]
    turned = Views(**{name: [part[i] for i in order] for name, part in vars(args["views"]).items()})
    one, two = padded_step(**args), padded_step(**args | {"views": turned})
    for embedding in ("q", "e", "d", "k"):
        torch.testing.assert_close(getattr(one, embedding)[order], getattr(two, embedding))
    torch.testing.assert_close(one.loss, two.loss)
    torch.testing.assert_close(one.grads, two.grads)
    torch.testing.assert_close(one.new_running_q, two.new_running_q)
    torch.testing.assert_close(one.new_running_k, two.new_running_k)


def test_step_moves_key_encoder_and_queue_and_leaves_its_input_alone():
    args = arguments()
    before = {part: {k: v.clone() for k, v in args[part].items()} for part in ("query", "key")}
    before |= {"running_q": fresh_running(args["query"]), "queue": args["queue"].clone()}
    step = padded_step(**args)
    for part, value in before.items():
        torch.testing.assert_close(args[part], value, rtol=0, atol=0)
    expected = {name: 0.9 * args["key"][name] + 0.1 * args["query"][name] for name in args["key"]}
    torch.testing.assert_close(step.new_key, expected)
    rows = torch.tensor([6, 7, 0])
    torch.testing.assert_close(step.new_queue[rows], step.k, rtol=0, atol=0)
    torch.testing.assert_close(step.new_queue[1:6], args["queue"][1:6], rtol=0, atol=0)
    assert step.new_pointer == 1
    torch.testing.assert_close(  # the queue as it was before the keys
        step.loss, loss_with_constants(step, step, args["queue"], mining=False)
    )


def test_each_embedding_has_its_own_encoder_and_view():
    args = arguments()
    step, views = padded_step(**args), args["views"]

    query = Encoder(args["query"], fresh_running(args["query"]), LAYOUTS, STRIDES, train=True)
    key = Encoder(step.new_key, fresh_running(step.new_key), LAYOUTS, STRIDES, train=True)
    normal = feature_maps(query, views.normal, QUERY_LAYOUTS)
    extreme = feature_maps(query, views.extreme, QUERY_LAYOUTS)
    keys = feature_maps(key, views.keys, KEY_LAYOUTS)
    expected = {
        "q": embed(query, normal, clips=3),
        "e": embed(query, extreme, clips=3),
        "d": embed(query, attention_guided_drop(extreme), clips=3),
        "k": embed(key, keys, clips=3),
    }
    for name, embedding in expected.items():
        torch.testing.assert_close(getattr(step, name), embedding)
    assert (step.d - step.e).abs().max() > 1e-3
    torch.testing.assert_close(step.new_running_q, query.running)
    torch.testing.assert_close(step.new_running_k, key.running)


def test_input_statistics_move_by_the_normal_view_then_the_extreme_one():
    args = arguments()
    step = padded_step(**args)
    mean = torch.zeros(3 * 3, dtype=torch.float64)
    for view in (args["views"].normal, args["views"].extreme):
        x = torch.cat([view[0], view[2]], dim=3)  # the clips of layout small: (3, T, 3, 2M)
        mean = 0.9 * mean + 0.1 * x.mean((1, 3)).T.reshape(-1)
    torch.testing.assert_close(step.new_running_q["input_norm.small.running_mean"], mean)
    idle = step.new_running_q["input_norm.idle.running_mean"]
    assert idle.count_nonzero() == 0


@pytest.mark.parametrize("shape", [(4, 6, 5), (4, 6, 5, 3)])
@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_is_pytorchs(shape, train):
    x, width = randn(*shape, seed=1), shape[1]
    state = {"n.weight": randn(width, seed=2), "n.bias": randn(width, seed=3)}
    running = {"n.running_mean": randn(width, seed=4), "n.running_var": randn(width, seed=5).exp()}
    mean, var = (value.clone() for value in running.values())
    encoder = Encoder(state, running, {}, [], train)
    expected = F.batch_norm(x, mean, var, state["n.weight"], state["n.bias"], train, 0.1, 1e-5)
    torch.testing.assert_close(batch_norm(encoder, "n", x), expected)
    torch.testing.assert_close(running, {"n.running_mean": mean, "n.running_var": var})


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("taps", [1, 9])
@pytest.mark.parametrize("frames", [1, 8, 9])
def test_temporal_convolution_is_pytorchs(stride, taps, frames):
    x, weight, bias = randn(2, 4, frames, 3), randn(5, 4, taps, 1, seed=1), randn(5, seed=2)
    expected = F.conv2d(x, weight, bias, stride=(stride, 1), padding=(taps // 2, 0))
    torch.testing.assert_close(temporal_conv(x, weight, bias, stride), expected)


def test_encoder_of_one_layout_is_that_of_pytorchs_layers():
    layouts = {"big": LAYOUTS["big"]}
    state = random_state(layouts, CHANNELS, STRIDES, DIM, generator(1))
    x = clips(["big"] * 3, seed=9)

    def norm(name, x):
        return F.batch_norm(x, None, None, state[f"{name}.weight"], state[f"{name}.bias"], True)

    def conv(name, x, stride=1):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.conv2d(x, weight, bias, (stride, 1), (weight.shape[2] // 2, 0))

    y = torch.stack(x).permute(0, 4, 3, 1, 2).reshape(6, 5 * 3, FRAMES)  # (N, V*C, T)
    y = norm("input_norm.big", y).view(6, 5, 3, FRAMES).permute(0, 2, 3, 1)  # (N, C, T, V)
    for i, stride in enumerate(STRIDES):
        shortcut = 0 if i == 0 else y
        if i in (2, 3):
            strided = conv(f"blocks.{i}.residual.conv", y, stride)
            shortcut = norm(f"blocks.{i}.residual.norm", strided)
        graph = layouts["big"] * state[f"edge_importance.big.{i}"]
        parts = conv(f"blocks.{i}.gcn.conv", y).chunk(3, dim=1)
        y = sum(part @ graph[k] for k, part in enumerate(parts))
        y = conv(f"blocks.{i}.tcn", norm(f"blocks.{i}.gcn_norm", y).relu(), stride)
        y = (norm(f"blocks.{i}.tcn_norm", y) + shortcut).relu()

    encoder = Encoder(state, fresh_running(state), layouts, STRIDES, train=True)
    maps = feature_maps(encoder, x, ["big"] * 3)
    torch.testing.assert_close(torch.stack(maps), y)
    pooled = y.mean((2, 3)).view(3, BODIES, -1).mean(1)
    hidden = F.linear(pooled, state["head.0.weight"], state["head.0.bias"]).relu()
    expected = F.normalize(F.linear(hidden, state["head.2.weight"], state["head.2.bias"]))
    torch.testing.assert_close(embed(encoder, maps, clips=3), expected)


def test_eval_features_do_not_feel_padding():
    args = arguments()
    running = padded_step(**args).new_running_q
    x = torch.stack(clips(["small"] * 4, seed=9))
    padded = plain_padded_features(args["query"], running, LAYOUTS, STRIDES, x, "small")
    alone = {"small": LAYOUTS["small"]}
    exact = plain_padded_features(args["query"], running, alone, STRIDES, x, "small")
    torch.testing.assert_close(padded, exact)
    pooled, maps = padded
    assert maps.shape == (4 * BODIES, CHANNELS[-1], 4, 3) and pooled.std(0).min() > 1e-3
    by_clip = maps.reshape(4, BODIES, CHANNELS[-1], 4, 3)
    torch.testing.assert_close(pooled, by_clip.mean((1, 3, 4)))


def test_padding_dilutes_the_statistics_of_training():
    """Padded joints leave the first graph convolution as 0, so they shrink the moments by J/V."""
    state = random_state(LAYOUTS, CHANNELS, STRIDES, DIM, generator(1))
    x, moments = clips(["small"] * 4, seed=9), []
    for layouts in (LAYOUTS, {"small": LAYOUTS["small"]}):
        encoder = Encoder(state, fresh_running(state), layouts, STRIDES, train=True)
        feature_maps(encoder, x, ["small"] * 4)
        count = 4 * BODIES * FRAMES * encoder.padded_joints
        mean = encoder.running["blocks.0.gcn_norm.running_mean"] / 0.1
        unbiased = (encoder.running["blocks.0.gcn_norm.running_var"] - 0.9) / 0.1
        moments.append((mean, unbiased * (count - 1) / count + mean**2))
    (mean, square), (exact_mean, exact_square) = moments
    torch.testing.assert_close(mean, exact_mean * 3 / 6)
    torch.testing.assert_close(square, exact_square * 3 / 6)


def test_drop_by_hand():
    """One joint that stands out by its mean, one single cell, and a track without any."""
    joint = torch.zeros(1, 2, 5, dtype=torch.float64)
    joint[0, :, 0] = 10.0  # mean 2, var 160/9: s 0.802 in joint 0, 0.636 elsewhere
    cell = torch.zeros(1, 2, 2, dtype=torch.float64)
    cell[0, 0, 0] = 10.0  # mean 2.5, var 25: s 0.743 in the cell, 0.637 elsewhere, joint 0.690
    flat = torch.ones(1, 2, 3, dtype=torch.float64)  # s 0.622
    maps = [(x + 1).requires_grad_() for x in (joint, cell, flat)]
    dropped = attention_guided_drop(maps)
    factor = (10 / 9) * (20 / 17)  # joints and cells: total / kept
    keep = [torch.ones_like(x) for x in maps]
    keep[0][0, :, 0] = 0
    keep[1][0, 0, 0] = 0
    for x, y, mask in zip(maps, dropped, keep, strict=True):
        torch.testing.assert_close(y, x * mask * factor)
        (grad,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(grad, mask * factor)


def test_drop_of_a_joint_takes_its_ordinary_cells_too():
    """A joint whose mean s reaches 0.7 though the s of one of its cells does not."""
    x = torch.zeros(1, 4, 8, dtype=torch.float64)
    x[0, :3, 0] = 10.0
    (y,) = attention_guided_drop([x + 1])
    expected = torch.full_like(x, (8 / 7) * (32 / 29))
    expected[0, :, 0] = 0
    torch.testing.assert_close(y, expected)


def test_drop_measures_spread_by_track_and_channel():
    """One cell of n stands out by (n-1)^2/(4n) whatever its height, unless 1e-4 outweighs it."""
    track = torch.zeros(3, 2, 2, dtype=torch.float64)
    track[0, 0, 0] = 10.0  # n = 4: 9/16, s 0.743
    track[1, 0, 1] = 1e4  # the same
    track[2, 1, 0] = 0.01  # var 2.5e-5 next to 1e-4: s 0.648
    short = torch.zeros(3, 1, 3, dtype=torch.float64)
    short[:, 0, 0] = 10.0  # n = 3: 1/3, s 0.697; the biased variance would make it 0.731
    dropped = attention_guided_drop([track + 1, short + 1])
    keep = torch.ones_like(track)
    keep[0, 0, 0] = keep[1, 0, 1] = 0
    torch.testing.assert_close(dropped[0], (track + 1) * keep * (21 / 19))
    torch.testing.assert_close(dropped[1], (short + 1) * (21 / 19))


def test_mined_positives_are_a_set():
    queue = torch.eye(4, dtype=torch.float64)
    k = F.normalize(randn(1, 4, seed=1))
    q = F.normalize(torch.tensor([[0.9, 0.1, 0.2, 0.0]], dtype=torch.float64))
    far = q.flip(1)
    p = F.softmax(torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / TEMPERATURE, 1)
    log_p = p.log()

    def info_nce(e, d):
        plain, mined = (contrast_loss(q, e, d, k, queue, TEMPERATURE, m) for m in (False, True))
        return mined - plain - log_p[0, 0]  # the plain CE and both D cancel

    torch.testing.assert_close(info_nce(q, q), -(log_p[0, 0] + log_p[0, 1]) / 2)
    three = -(log_p[0, 0] + log_p[0, 1] + log_p[0, 4]) / 3
    torch.testing.assert_close(info_nce(q, far), three)
    torch.testing.assert_close(info_nce(far, q), three)


def test_the_teacher_of_the_loss_is_constant():
    """q gets the gradient of its InfoNCE alone, whatever the other views are."""
    queue, k = F.normalize(randn(6, 4, seed=2)), F.normalize(randn(1, 4, seed=1))
    q = F.normalize(randn(1, 4, seed=3)).requires_grad_()
    e = F.normalize(randn(1, 4, seed=4))
    with_views = torch.autograd.grad(contrast_loss(q, e, e, k, queue, TEMPERATURE, False), q)
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / TEMPERATURE
    alone = torch.autograd.grad(F.cross_entropy(logits, torch.tensor([0])), q)
    torch.testing.assert_close(with_views, alone)


def test_queue_wraps():
    queue, k = torch.zeros(4, 2), torch.ones(3, 2)
    queue, pointer = enqueue(queue, 3, k)
    assert queue[:, 0].tolist() == [1, 1, 0, 1] and pointer == 2
