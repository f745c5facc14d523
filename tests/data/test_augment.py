"""Augmentations against formulas written clip by clip in numpy, and how often each happens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from msclr import layouts
from msclr.data import augment
from msclr.data.random import ClipRandom

FRAMES, BODIES = 20, 2
LAYOUT = layouts.get("h36m_17")
MANY = torch.arange(4000)


class Given:
    """Stands in for ClipRandom: hands out given draws, one list a clip, in the order of calls."""

    def __init__(self, *calls):
        self.calls = [torch.tensor(call) for call in calls]

    def _next(self, count: int) -> torch.Tensor:
        assert self.calls[0].shape[1] == count
        return self.calls.pop(0)

    def uniform(self, count, low=0.0, high=1.0):
        return low + self._next(count) * (high - low)  # the given numbers are of 0..1

    def integers(self, count, below):
        assert int(self.calls[0].max()) < below
        return self._next(count)

    def normal(self, count):
        return self._next(count)


def clips(count: int, frames: int = FRAMES) -> torch.Tensor:
    """Clips (B, M, T, V, 3) in float64; every third one has no second body."""
    source = torch.Generator().manual_seed(count)
    x = torch.randn(count, BODIES, frames, 17, 3, dtype=torch.float64, generator=source)
    x[::3, 1] = 0
    return x


def random_of(count: int, purpose: int = 0) -> ClipRandom:
    return ClipRandom(torch.arange(count), 1, 2, purpose)


def close(found: torch.Tensor, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=2e-6)  # draws are float32


def crop(x: np.ndarray, start: int) -> np.ndarray:
    """One clip (M, T, V, 3): a mirrored sixth on both ends, T frames from `start` of that."""
    pad = x.shape[1] // 6
    longer = np.concatenate([x[:, :pad][:, ::-1], x, x[:, x.shape[1] - pad :][:, ::-1]], axis=1)
    return longer[:, start : start + x.shape[1]]


def shear(u: np.ndarray) -> np.ndarray:
    """Six numbers of 0..1, row by row into the off-diagonal."""
    a, b, c, d, e, f = u.astype(np.float64) - 0.5
    return np.array([[1, a, b], [c, 1, d], [e, f, 1]])


def rotation(main: int, u: np.ndarray) -> np.ndarray:
    angles = [np.radians(u[axis] * (30 if axis == main else 1)) for axis in range(3)]
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


def blur(x: np.ndarray, sd: float) -> np.ndarray:
    taps = np.exp(-(np.arange(-7, 8) ** 2) / (2 * sd**2))
    longer = np.concatenate([x[:, :1]] * 7 + [x] + [x[:, -1:]] * 7, axis=1)
    weighted = [tap * longer[:, i : i + x.shape[1]] for i, tap in enumerate(taps / taps.sum())]
    return sum(weighted)


@pytest.mark.parametrize("frames", [4, 6, 20, 50])
def test_crop_takes_t_frames_of_the_mirrored_clip(frames):
    pad = frames // 6
    x = clips(2 * pad + 1, frames)
    starts = [[start] for start in range(2 * pad + 1)]  # every start there is
    found = augment.temporal_crop(x, augment.crop_start(x, Given(starts)))
    for start in range(2 * pad + 1):
        np.testing.assert_array_equal(found[start].numpy(), crop(x[start].numpy(), start))


def test_crop_starts_are_equally_frequent():
    starts = augment.crop_start(clips(1).expand(4000, -1, -1, -1, -1), ClipRandom(MANY, 0, 0))
    counts = np.unique(starts.numpy(), return_counts=True)
    assert counts[0].tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert stats.chisquare(counts[1]).pvalue > 0.001


def test_normal_view_is_crop_then_shear():
    x, u = clips(4), np.random.default_rng(0).random((4, 6), dtype=np.float32)
    starts = [[0], [3], [5], [6]]
    found = augment.normal_view(x, Given(starts, u.tolist()))
    for i in range(4):
        close(found[i], crop(x[i].numpy(), starts[i][0]) @ shear(u[i]).T)


def test_shear_is_uniform_off_the_diagonal():
    matrix = augment.shear_matrix(ClipRandom(MANY, 0, 0)).double().numpy()
    for i in range(3):
        assert (matrix[:, i, i] == 1).all()
        for j in {0, 1, 2} - {i}:
            assert stats.kstest(matrix[:, i, j], stats.uniform(-0.5, 1).cdf).pvalue > 0.001


@pytest.mark.parametrize("main", [0, 1, 2])
def test_rotation_is_about_x_y_z_in_turn(main):
    u = np.array([[0.2, 0.9, 0.5], [1.0, 1.0, 1.0]])
    found = augment.rotation_matrix(Given([[main], [main]], u.tolist()))
    close(found, np.stack([rotation(main, row) for row in u]))


def test_rotation_turns_one_axis_far_and_the_others_a_degree():
    matrix = augment.rotation_matrix(ClipRandom(MANY, 0, 0)).double()
    unit = torch.eye(3, dtype=torch.float64).expand(4000, 3, 3)
    torch.testing.assert_close(matrix @ matrix.mT, unit, rtol=0, atol=1e-6)
    x = torch.atan2(-matrix[:, 1, 2], matrix[:, 2, 2])  # the angles of R_x R_y R_z, read off
    y = matrix[:, 0, 2].asin()
    z = torch.atan2(-matrix[:, 0, 1], matrix[:, 0, 0])
    degrees, order = torch.stack([x, y, z], dim=1).rad2deg().sort(dim=1)
    assert degrees.min() > -1e-4
    assert degrees[:, 1].max() < 1.0001
    assert 29.9 < degrees.max() < 30.0001
    wide = degrees[:, 2][degrees[:, 2] > 1]  # below, the main axis may not be the largest
    assert stats.kstest(wide.numpy(), stats.uniform(1, 29).cdf).pvalue > 0.001
    assert stats.chisquare(order[:, 2].bincount().numpy()).pvalue > 0.001


def test_noise_is_added_where_chosen_and_never_to_an_absent_body():
    x, noise = clips(4), torch.randn(4, BODIES * FRAMES * 17 * 3)
    found = augment.add_noise(x, Given([[0.49], [0.51], [0.0], [0.3]], noise.tolist()))
    for i, chosen in enumerate([True, False, True, True]):
        wanted = x[i] + 0.01 * noise[i].double().view_as(x[i]) * chosen
        if i % 3 == 0:
            wanted[1] = 0
        close(found[i], wanted.numpy())


def test_noise_is_normal_and_every_coordinate_has_its_own():
    x = torch.ones(100, BODIES, FRAMES, 17, 3)
    noise = (augment.add_noise(x, random_of(100)) - x).double() * 100
    noise = noise[noise.flatten(1).any(1)]
    assert stats.kstest(noise.flatten().numpy(), stats.norm.cdf).pvalue > 1e-4
    for axis in range(1, 5):
        other = noise.roll(1, dims=axis)
        assert abs(np.corrcoef(noise.flatten(), other.flatten())[0, 1]) < 0.02


@pytest.mark.parametrize("frames", [1, 5, 20])
def test_blur_is_a_gaussian_of_15_taps_over_repeated_ends(frames):
    x, u = clips(5, frames), [[0.0], [0.3], [1.0], [0.7], [0.5]]
    found = augment.temporal_blur(x, Given([[0.1], [0.2], [0.49], [0.4], [0.5]], u))
    for i in range(4):
        close(found[i], blur(x[i].numpy(), 0.1 + 1.9 * u[i][0]))
    assert torch.equal(found[4], x[4])  # not chosen


def test_zeroed_axis_is_zero_and_the_others_are_kept():
    x = clips(4)
    found = augment.zero_axis(x, Given([[0.1], [0.2], [0.49], [0.5]], [[0], [1], [2], [1]]))
    for i, axes in enumerate([[1, 2], [0, 2], [0, 1], [0, 1, 2]]):
        assert torch.equal(found[i][..., axes], x[i][..., axes])
        assert not found[i][..., [a for a in range(3) if a not in axes]].any()


def without(monkeypatch, *steps: str) -> None:
    """Switch steps of the extreme view off."""
    unit = torch.eye(3)[None]
    for step in steps:
        instead = (lambda r: unit) if step.endswith("matrix") else (lambda x, r: x)
        monkeypatch.setattr(augment, step, instead)


PLAIN = ("temporal_crop", "shear_matrix", "rotation_matrix")
OPTIONAL = ("add_noise", "temporal_blur", "zero_axis")


def test_flip_swaps_joints_and_nothing_else(monkeypatch):
    without(monkeypatch, *PLAIN, *OPTIONAL)
    x = clips(64)
    found = augment.extreme_view(x, random_of(64), LAYOUT.flip)
    mirrored = x.clone()
    for left, right in LAYOUT.mirror_pairs:
        a, b = LAYOUT.joints.index(left), LAYOUT.joints.index(right)
        mirrored[..., a, :], mirrored[..., b, :] = x[..., b, :], x[..., a, :]
    kept = (found == x).flatten(1).all(1)
    swapped = (found == mirrored).flatten(1).all(1)
    assert (kept ^ swapped).all()
    assert 0 < swapped.sum() < 64


@pytest.mark.parametrize("step", ["flip", *OPTIONAL])
def test_each_optional_step_happens_to_half_of_the_clips(monkeypatch, step):
    without(monkeypatch, *PLAIN, *(other for other in OPTIONAL if other != step))
    x = torch.zeros(1, 1, 3, 2, 3)
    x[0, 0, 1, :, :] = torch.tensor([[1.0], [2.0]])  # one frame: the faintest blur shows in 0
    x = x.expand(4000, -1, -1, -1, -1)
    flip = torch.tensor([1, 0] if step == "flip" else [0, 1])
    found = augment.extreme_view(x, ClipRandom(MANY, 0, 0), flip)
    changed = (found != x).flatten(1).any(1)
    assert stats.binomtest(int(changed.sum()), 4000, 0.5).pvalue > 0.001


def test_extreme_view_is_the_steps_in_order():
    """Every clip by the formulas above, with the draws in the order the steps are listed."""
    x, draw = clips(24), random_of(24)
    found = augment.extreme_view(x, random_of(24), LAYOUT.flip)
    start, off_diagonal = draw.integers(1, 2 * (FRAMES // 6) + 1), draw.uniform(6)
    flipped, main, angles = draw.uniform(1) < 0.5, draw.integers(1, 3), draw.uniform(3)
    noisy, noise = draw.uniform(1) < 0.5, draw.normal(x[0].numel())
    blurred, sd = draw.uniform(1) < 0.5, draw.uniform(1, 0.1, 2.0)
    zeroed, axis = draw.uniform(1) < 0.5, draw.integers(1, 3)
    for chosen in (flipped, noisy, blurred, zeroed):
        assert 0 < chosen.sum() < 24
    for i in range(24):
        y = crop(x[i].numpy(), int(start[i])) @ shear(off_diagonal[i].numpy()).T
        if flipped[i]:
            y = y[:, :, LAYOUT.flip.numpy()]
        y = y @ rotation(int(main[i]), angles[i].double().numpy()).T
        if noisy[i]:
            y = (
                y
                + 0.01
                * noise[i].double().numpy().reshape(y.shape)
                * (y != 0).any((1, 2, 3))[:, None, None, None]
            )
        if blurred[i]:
            y = blur(y, float(sd[i]))
        if zeroed[i]:
            y[..., int(axis[i])] = 0
        close(found[i], y)


def normal(x: torch.Tensor, random: ClipRandom) -> torch.Tensor:
    return augment.normal_view(x, random)


def extreme(x: torch.Tensor, random: ClipRandom) -> torch.Tensor:
    return augment.extreme_view(x, random, LAYOUT.flip)


@pytest.mark.parametrize("view", [normal, extreme])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_absent_bodies_stay_exactly_zero(view, dtype):
    x = clips(60).to(dtype)
    before = x.clone()
    found = view(x, random_of(60))
    assert found.dtype == dtype
    assert not found[::3, 1].any()
    present = torch.ones(60, BODIES, dtype=torch.bool)
    present[::3, 1] = False
    assert found.flatten(2).any(2)[present].all()
    assert torch.equal(x, before)  # and the clips themselves are not written to


@pytest.mark.parametrize("view", [normal, extreme])
def test_bodies_of_a_clip_share_its_transform(monkeypatch, view):
    without(monkeypatch, "add_noise")  # the one step that tells bodies apart
    x = clips(40)
    x[:, 1] = x[:, 0]
    found = view(x, random_of(40))
    torch.testing.assert_close(found[:, 1], found[:, 0], rtol=0, atol=1e-12)
    assert (found - x).flatten(1).abs().max(1).values.min() > 1e-3


@pytest.mark.parametrize("view", [normal, extreme])
def test_a_batch_equals_its_clips_one_by_one(view):
    x = clips(12)
    together = view(x, random_of(12))
    for i in range(12):
        alone = view(x[i : i + 1], ClipRandom(torch.tensor([i]), 1, 2))
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-12)
    assert not torch.equal(view(x, random_of(12, purpose=1)), together)
