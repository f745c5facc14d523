"""Augmentations against formulas written clip by clip in numpy, and how often each happens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from msclr import layouts
from msclr.kernels import philox
from msclr.kernels.augment import reference

FRAMES, BODIES = 20, 2
LAYOUT = layouts.get("h36m_17")
JOINTS = LAYOUT.num_joints
SEED, PURPOSE = 2 + 3 * 2**32, 4
MANY = torch.arange(4000)
BIG = 0xFFFFFFFF

# Known answers of Random123 for Philox-4x32-10 (Salmon et al., SC 2011): counter, key, words.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((BIG, BIG, BIG, BIG), (BIG, BIG), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def number(choice):
    """A view's or a stream's, as operators take it."""
    return (reference.VIEWS if choice in reference.VIEWS else reference.STREAMS).index(choice)


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_gives_the_published_words(counter, key, words):
    found = philox(tuple(torch.tensor([c]) for c in counter), key)
    assert [int(word) for word in found] == list(words)


def test_philox_counts_each_element_of_its_tensors_alone():
    together = philox(
        tuple(torch.tensor(c) for c in zip(*[k[0] for k in KNOWN], strict=True)), (7, 9)
    )
    for i, (counter, _, _) in enumerate(KNOWN):
        alone = philox(tuple(torch.tensor([c]) for c in counter), (7, 9))
        assert [int(word[i]) for word in together] == [int(word) for word in alone]


def test_counter_is_block_clip_epoch_purpose_and_key_is_the_seed():
    found = words_of([11, 2**33 + 1], [16, 5], epochs=[6, 2**32 + 7])
    for i, (clip, epoch) in enumerate([(11, 6), (1, 7)]):  # of each the lower 32 bits
        for k, block in enumerate([16, 5]):
            counter = tuple(torch.tensor([n]) for n in (block, clip, epoch, PURPOSE))
            assert found[i, k].tolist() == [int(w) for w in philox(counter, (2, 3))]


# The formulas


def words_of(clips, blocks, epochs=None) -> torch.Tensor:
    epochs = [1] * len(clips) if epochs is None else epochs
    return reference.random_words(
        torch.tensor(blocks), torch.tensor(clips), torch.tensor(epochs), SEED, PURPOSE
    )


def clips(count: int, frames: int = FRAMES) -> torch.Tensor:
    """Clips (B, M, T, V, 3) in float64; every third one has no second body."""
    source = torch.Generator().manual_seed(count)
    x = torch.randn(count, BODIES, frames, JOINTS, 3, dtype=torch.float64, generator=source)
    x[::3, 1] = 0
    return x


def close(found: torch.Tensor, wanted: np.ndarray, atol: float = 1e-12) -> None:
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=atol)


def crop(x: np.ndarray, start: int) -> np.ndarray:
    """One clip (M, T, V, 3): a mirrored sixth on both ends, T frames from `start` of that."""
    pad = x.shape[1] // 6
    longer = np.concatenate([x[:, :pad][:, ::-1], x, x[:, x.shape[1] - pad :][:, ::-1]], axis=1)
    return longer[:, start : start + x.shape[1]]


def shear(u: np.ndarray, planar: bool) -> np.ndarray:
    """Six numbers of 0..1, row by row into the off-diagonal."""
    a, b, c, d, e, f = u - 0.5
    if planar:
        b = d = e = f = 0
    return np.array([[1, a, b], [c, 1, d], [e, f, 1]])


def rotation(main: int, u: np.ndarray, planar: bool) -> np.ndarray:
    angles = [np.radians(u[axis] * (30 if axis == main else 1)) for axis in range(3)]
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    whole = about_x @ about_y @ about_z
    if planar:
        whole = np.block([[whole[:2, :2], np.zeros((2, 1))], [np.zeros((1, 2)), np.ones((1, 1))]])
    return whole


def noise(words: np.ndarray) -> np.ndarray:
    """Words (..., 4) as three normal numbers."""
    u = (words >> 8) / 2**24
    first, second = (np.sqrt(-2 * np.log(u[..., i] + 2.0**-24)) for i in (0, 2))
    angle, other = 2 * np.pi * u[..., 1], 2 * np.pi * u[..., 3]
    return np.stack([first * np.cos(angle), first * np.sin(angle), second * np.cos(other)], -1)


def blur(x: np.ndarray, sd: float) -> np.ndarray:
    taps = np.exp(-(np.arange(-7, 8) ** 2) / (2 * sd**2))
    longer = np.concatenate([x[:, :1]] * 7 + [x] + [x[:, -1:]] * 7, axis=1)
    weighted = [tap * longer[:, i : i + x.shape[1]] for i, tap in enumerate(taps / taps.sum())]
    return sum(weighted)


def to_stream(x: np.ndarray, stream: str, planar: bool) -> np.ndarray:
    made = x.copy()
    if stream == "motion":
        made[:, :-1], made[:, -1] = np.diff(x, axis=1), 0
    elif stream == "bone":
        made = x - x[:, :, LAYOUT.parents.numpy()]
    if planar:
        made[..., 2] = x[..., 2]
    return made


def a_view(x: np.ndarray, clip: int, view: str, stream: str, planar: bool) -> np.ndarray:
    """One clip (M, T, V, 3), by the table of random numbers and the formulas above."""
    small, steps = words_of([clip], range(5))[0].numpy(), BODIES * x.shape[1] * JOINTS
    u = ((small >> 8) / 2**24).ravel()
    pad, axes = x.shape[1] // 6, 2 if planar else 3
    y = crop(x, (int(small[0, 0]) * (2 * pad + 1)) >> 32) @ shear(u[1:7], planar).T
    if view == "extreme":
        if u[7] < 0.5:
            y = y[:, :, LAYOUT.flip.numpy()]
        y = y @ rotation((int(small[2, 0]) * 3) >> 32, u[9:12], planar).T
        if u[12] < 0.5:
            n = noise(words_of([clip], range(16, 16 + steps))[0].numpy()).reshape(y.shape)
            n[..., axes:] = 0
            y = y + 0.01 * n * x.any((1, 2, 3))[:, None, None, None]
        if u[13] < 0.5:
            y = blur(y, 0.1 + 1.9 * u[14])
        if u[15] < 0.5:
            y[..., (int(small[4, 0]) * axes) >> 32] = 0
    return to_stream(y, stream, planar)


@pytest.mark.parametrize("planar", [False, True], ids=["space", "plane"])
@pytest.mark.parametrize("stream", ["joint", "motion", "bone"])
@pytest.mark.parametrize("view", ["normal", "extreme"])
def test_a_view_is_the_formulas_one_after_the_other(view, stream, planar):
    x, numbers = clips(24), torch.arange(100, 124)
    found = reference.augment(
        x, torch.arange(24), numbers, torch.ones_like(numbers), SEED, PURPOSE, number(view),
        LAYOUT.flip, number(stream), LAYOUT.parents, planar, torch.float64,
    )  # fmt: skip
    for i in range(24):
        close(found[i], a_view(x[i].numpy(), int(numbers[i]), view, stream, planar))
    draws = reference.draw(numbers, numbers * 0 + 1, SEED, PURPOSE, FRAMES, True, planar)
    blurred = draws.taps.max(1).values < 1
    for chosen in (draws.flipped, draws.noisy, blurred, draws.zeroed >= 0):
        assert 0 < chosen.sum() < 24  # both ways were seen


@pytest.mark.parametrize("frames", [1, 4, 6, 20, 50])
def test_crop_takes_t_frames_of_the_mirrored_clip(frames):
    pad = frames // 6
    x = clips(2 * pad + 1, frames)
    found = reference.temporal_crop(x, torch.arange(-pad, pad + 1))  # every start there is
    for start in range(2 * pad + 1):
        np.testing.assert_array_equal(found[start].numpy(), crop(x[start].numpy(), start))


@pytest.mark.parametrize("planar", [False, True], ids=["space", "plane"])
def test_shear_fills_the_off_diagonal_row_by_row(planar):
    u = np.random.default_rng(0).random((4, 6))
    found = reference.shear_matrix(torch.from_numpy(u), planar)
    close(found, np.stack([shear(row, planar) for row in u]))


@pytest.mark.parametrize("planar", [False, True], ids=["space", "plane"])
@pytest.mark.parametrize("main", [0, 1, 2])
def test_rotation_is_about_x_y_z_in_turn(main, planar):
    u = np.array([[0.2, 0.9, 0.5], [1.0, 1.0, 1.0]])
    found = reference.rotation_matrix(torch.tensor([main, main]), torch.from_numpy(u), planar)
    close(found, np.stack([rotation(main, row, planar) for row in u]))


@pytest.mark.parametrize("frames", [1, 5, 20])
def test_blur_is_a_gaussian_of_15_taps_over_repeated_ends(frames):
    x, u = clips(5, frames), torch.tensor([0.0, 0.3, 1.0, 0.7, 0.5], dtype=torch.float64)
    taps = reference.blur_taps(torch.tensor([True, True, True, True, False]), u)
    found = reference.temporal_blur(x, taps)
    for i in range(4):
        close(found[i], blur(x[i].numpy(), 0.1 + 1.9 * float(u[i])))
    assert torch.equal(found[4], x[4])  # not chosen


def test_zeroed_axis_is_zero_and_the_others_are_kept():
    x = clips(4)
    found = reference.zero_axis(x, torch.tensor([0, 1, 2, -1]))
    for i, axes in enumerate([[1, 2], [0, 2], [0, 1], [0, 1, 2]]):
        assert torch.equal(found[i][..., axes], x[i][..., axes])
        assert not found[i][..., [a for a in range(3) if a not in axes]].any()


# Distributions


def many(planar: bool = False, frames: int = FRAMES) -> reference.Draws:
    return reference.draw(MANY, MANY * 0, SEED, PURPOSE, frames, True, planar)


def test_crop_starts_are_equally_frequent():
    counts = np.unique(many().start.numpy(), return_counts=True)
    assert counts[0].tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert stats.chisquare(counts[1]).pvalue > 0.001


def test_without_frames_to_spare_the_crop_is_the_clip():
    assert not many(frames=5).start.any()


def test_shear_is_uniform_off_the_diagonal():
    draws = reference.draw(MANY, MANY * 0, SEED, PURPOSE, FRAMES, False, False)
    matrix = draws.matrix.numpy()
    for i in range(3):
        assert (matrix[:, i, i] == 1).all()
        for j in {0, 1, 2} - {i}:
            assert stats.kstest(matrix[:, i, j], stats.uniform(-0.5, 1).cdf).pvalue > 0.001
    off = matrix.reshape(-1, 9)[:, [1, 2, 3, 5, 6, 7]]
    assert np.abs(np.corrcoef(off.T) - np.eye(6)).max() < 4.5 / np.sqrt(len(MANY))


def test_rotation_turns_one_axis_far_and_the_others_a_degree():
    words = reference.random_words(torch.tensor([2]), MANY, MANY * 0, SEED, PURPOSE)[:, 0]
    main, u = reference.integers(words[:, 0], 3), reference.uniform(words[:, 1:])
    matrix = reference.rotation_matrix(main, u, False)
    unit = torch.eye(3, dtype=torch.float64).expand(4000, 3, 3)
    torch.testing.assert_close(matrix @ matrix.mT, unit, rtol=0, atol=1e-12)
    x = torch.atan2(-matrix[:, 1, 2], matrix[:, 2, 2])  # the angles of R_x R_y R_z, read off
    y = matrix[:, 0, 2].asin()
    z = torch.atan2(-matrix[:, 0, 1], matrix[:, 0, 0])
    degrees, order = torch.stack([x, y, z], dim=1).rad2deg().sort(dim=1)
    assert degrees.min() > -1e-9
    assert degrees[:, 1].max() < 1.0001
    assert 29.9 < degrees.max() < 30.0001
    wide = degrees[:, 2][degrees[:, 2] > 1]  # below, the main axis may not be the largest
    assert stats.kstest(wide.numpy(), stats.uniform(1, 29).cdf).pvalue > 0.001
    assert stats.chisquare(order[:, 2].bincount().numpy()).pvalue > 0.001


@pytest.mark.parametrize(("planar", "axes"), [(False, 3), (True, 2)])
def test_each_optional_step_happens_to_half_of_the_clips(planar, axes):
    draws = many(planar)
    steps = draws.flipped, draws.noisy, draws.taps.max(1).values < 1 - 1e-6, draws.zeroed >= 0
    for i, chosen in enumerate(steps):
        # a blur of sd below 0.18 is as good as none: one in twenty-four
        p = 0.5 * (1 - 0.0826 / 1.9) if i == 2 else 0.5
        assert stats.binomtest(int(chosen.sum()), 4000, p).pvalue > 0.001
    both = np.corrcoef(torch.stack(steps).numpy())
    assert np.abs(both - np.eye(4)).max() < 4.5 / np.sqrt(4000)
    counts = draws.zeroed[draws.zeroed >= 0].bincount().numpy()
    assert len(counts) == axes
    assert stats.chisquare(counts).pvalue > 0.001


def test_blurs_have_an_sd_of_a_tenth_to_two_frames():
    taps = many().taps.numpy()
    np.testing.assert_allclose(taps.sum(1), 1, atol=1e-12)
    ratio = taps[:, 6] / taps[:, 7]
    ratio = ratio[ratio > 0]
    sd = np.sqrt(-0.5 / np.log(ratio))
    assert sd.min() >= 0.1 and sd.max() <= 2
    assert stats.kstest(sd, stats.uniform(0.1, 1.9).cdf).pvalue > 0.001


def test_noise_is_normal_and_every_coordinate_has_its_own():
    numbers = torch.arange(40)
    n = reference.normals(
        numbers, numbers * 0, SEED, PURPOSE, (2, FRAMES, JOINTS), torch.float64, False
    )
    assert n.shape == (40, 2, FRAMES, JOINTS, 3)
    for axis in range(3):
        assert stats.kstest(n[..., axis].flatten().numpy(), stats.norm.cdf).pvalue > 1e-3
    for axis in range(5):
        other = n.roll(1, dims=axis)
        assert abs(np.corrcoef(n.flatten(), other.flatten())[0, 1]) < 4.5 / np.sqrt(n.numel())


@pytest.mark.parametrize("word", [0, BIG])
def test_extreme_words_stay_in_range(word):
    words = torch.tensor([word])
    assert 0 <= reference.uniform(words).item() < 1
    assert reference.integers(words, 2**31).item() == (0 if word == 0 else 2**31 - 1)
