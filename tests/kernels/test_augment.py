"""augment compiled for the CPU, and what all backends share: arguments, what a clip depends on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from msclr import layouts
from msclr.kernels import augment
from msclr.kernels.augment import cases, reference
from tests.needs import needs_operators

LAYOUT = layouts.get("h36m_17")
SEED, PURPOSE = 2**63 + 5, 3
VIEWS, STREAMS = ("none", "normal", "extreme"), ("joint", "motion", "bone")
# Of the largest coordinate that an exact result has; measured: 2.6e-7 in the worst of these tests.
ERROR = 4e-7

BACKENDS = [pytest.param("cpu", marks=needs_operators), "reference"]


def number(choice):
    """A view's or a stream's, as operators take it."""
    return (reference.VIEWS if choice in reference.VIEWS else reference.STREAMS).index(choice)


def clips(count=30, bodies=2, frames=13, joints=17, seed=0) -> torch.Tensor:
    """(N, M, T, V, 3) float32; every third one lacks its last body."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(count, bodies, frames, joints, 3, generator=g)
    if bodies > 1:
        x[::3, -1] = 0
    return x


def tables(joints=17) -> dict[str, torch.Tensor]:
    """A permutation and parents, of any number of joints."""
    if joints == 17:
        return {"flip": LAYOUT.flip, "parents": LAYOUT.parents}
    return {
        "flip": torch.arange(joints).flip(0),
        "parents": (torch.arange(joints) - 1).clamp(min=0),
    }


def of(x, backend, index=None, epochs=None, **options):
    index = torch.arange(len(x)) if index is None else index
    epochs = index % 3 if epochs is None else epochs
    options = {"seed": SEED, "purpose": PURPOSE, **tables(x.shape[3]), **options}
    return augment(x, index, epochs, **options, backend=backend)


def exact(x, view="none", stream="joint", planar=False):
    """In float64."""
    index, joints = torch.arange(len(x)), tables(x.shape[3])
    made = reference.augment(
        x.double(), index, index, index % 3, SEED, PURPOSE, number(view), joints["flip"],
        number(stream), joints["parents"], planar, torch.float64,
    )  # fmt: skip
    return made.permute(0, 4, 2, 3, 1)


def assert_is_exact(found, wanted, x):
    assert found.shape == wanted.shape and found.dtype == torch.float32
    error = (found.double() - wanted).abs().max()
    assert error <= ERROR * max(1, x.abs().max())


def test_some_clips_of_the_contracts_cases_see_every_step_and_some_do_not():
    given = cases.CASES["extreme, joint"]()
    draws = reference.draw(
        given.numbers, given.epochs, given.seed, given.purpose, given.clips.shape[2], True, False
    )
    steps = draws.flipped, draws.noisy, draws.taps.max(1).values < 1, draws.zeroed >= 0, draws.start
    assert all(chosen.any() and not chosen.all() for chosen in steps)


SHAPES = [  # bodies, frames, joints
    (1, 1, 1), (1, 1, 17), (2, 2, 1), (1, 6, 1), (3, 5, 3), (1, 7, 5), (2, 15, 16), (1, 50, 25),
    (2, 33, 42), (5, 14, 11), (1, 64, 128),
]  # fmt: skip


@needs_operators
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("stream", STREAMS)
def test_any_size(shape, stream):
    x = clips(16, *shape)
    for view in VIEWS:
        assert_is_exact(of(x, "cpu", view=view, stream=stream), exact(x, view, stream), x)


@needs_operators
def test_every_float16_is_read_and_every_float32_rounded_as_torch_does():
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.float16)
    x = every[: 3 * 21845].reshape(1, 1, 1, -1, 3)
    index = torch.tensor([0])
    found = augment(x, index, index, seed=0, purpose=0, backend="cpu")
    assert torch.equal(found.permute(0, 4, 2, 3, 1).nan_to_num(7e9), x.float().nan_to_num(7e9))
    g = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (3 * 60_000,), dtype=torch.int32, generator=g)
    near = every.float().repeat(3)[: 3 * 60_000].view(torch.int32)  # ties, and what is next to them
    for numbers in (bits, *(near + 4096 + offset for offset in (-1, 0, 1))):
        y = numbers.view(torch.float32).reshape(1, 1, 1, -1, 3)
        for dtype in (torch.float16, torch.bfloat16):
            made = augment(y, index, index, seed=0, purpose=0, dtype=dtype, backend="cpu")
            made, wanted = made.permute(0, 4, 2, 3, 1), y.to(dtype)
            assert torch.equal(made.isnan(), wanted.isnan())
            assert torch.equal(made.nan_to_num(1), wanted.nan_to_num(1))


@needs_operators
def test_normal_numbers_are_those_of_the_formula_to_a_millionth():
    """Of coordinates that are next to nothing the noise is what is left: so it is seen exactly."""
    x = torch.full((1, 1, 200, 500, 3), 1e-37)
    index = torch.zeros(60, dtype=torch.int64)
    numbers = torch.arange(60)
    found = of(x, "cpu", index, numbers * 0, numbers=numbers, view="extreme")
    draws = reference.draw(numbers, numbers * 0, SEED, PURPOSE, 200, True, False)
    plain = draws.noisy & (draws.taps.max(1).values == 1) & (draws.zeroed < 0)
    assert plain.sum() >= 3
    wanted = reference.normals(
        numbers[plain], numbers[plain] * 0, SEED, PURPOSE, (1, 200, 500), torch.float64, False
    )
    normal = 100 * found[plain].permute(0, 4, 2, 3, 1).double()
    assert (normal - wanted).abs().max() < 1e-6
    assert wanted.abs().max() > 4.5  # the tails were seen
    assert ((normal - wanted).abs() <= 1e-6 * wanted.abs() + 3e-7).all()
    assert stats.kstest(normal.flatten()[::7].numpy(), stats.norm.cdf).pvalue > 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("view", VIEWS)
def test_absent_bodies_stay_exactly_zero(view, stream, backend):
    x = clips(60)
    before = x.clone()
    found = of(x, backend, view=view, stream=stream).permute(0, 4, 2, 3, 1)
    assert not found[::3, 1].any()
    assert found[1::3].flatten(2).any(2).all()
    assert torch.equal(x, before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_body_in_one_frame_only_is_present_though_the_crop_may_leave_it_out(backend):
    x = torch.zeros(40, 1, 12, 5, 3)
    x[:, 0, 0, 0, 0] = 1.0
    found, wanted = of(x, backend, view="extreme"), exact(x, "extreme")
    assert_is_exact(found, wanted, x)
    noisy = wanted.flatten(1).count_nonzero(1) > 60  # noise is everywhere
    assert noisy.sum() >= 8
    x[:, 0, 0, 0, 0] = -0.0
    assert not of(x, backend, view="extreme").any()


# What a clip depends on


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("view", VIEWS)
def test_order_and_size_of_a_batch_change_nothing(view, backend):
    x = clips()
    index = torch.tensor([4, 0, 29, 4, 7, 13, 2])
    epochs = torch.tensor([1, 1, 5, 2, 0, 0, 9])
    together = of(x, backend, index, epochs, view=view)
    turned = of(x, backend, index.flip(0), epochs.flip(0), view=view)
    assert torch.equal(turned.flip(0), together)
    for i in range(7):
        alone = of(x, backend, index[i : i + 1], epochs[i : i + 1], view=view)
        if backend == "cpu":
            assert torch.equal(alone[0], together[i])
        else:  # a matrix product of another size may round otherwise
            torch.testing.assert_close(alone[0], together[i], rtol=0, atol=2e-6)


@needs_operators
def test_the_number_of_threads_changes_nothing():
    x, before, found = clips(100), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(of(x, "cpu", view="extreme"))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_part_of_the_data_gives_what_the_whole_gives(backend):
    x, numbers = clips(), torch.tensor([8, 3, 21])
    whole = of(x, backend, numbers, numbers % 3, view="extreme")
    part = of(x[numbers], backend, torch.arange(3), numbers % 3, numbers=numbers, view="extreme")
    assert torch.equal(part, whole)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("view", ["normal", "extreme"])
@pytest.mark.parametrize(
    "other",
    [
        {"numbers": torch.arange(30) + 1},
        {"epochs": torch.arange(30) % 3 + 1},
        {"seed": SEED + 1},
        {"seed": SEED + 2**32},
        {"purpose": PURPOSE + 1},
    ],
    ids=["number", "epoch", "seed", "upper word of the seed", "purpose"],
)
def test_each_part_of_the_counter_changes_every_clip(view, other, backend):
    x = clips()
    changed = (of(x, backend, view=view) != of(x, backend, view=view, **other)).flatten(1).any(1)
    assert changed.all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_bodies_share_all_but_the_noise(backend):
    x = clips(80)
    x[:, 1] = x[:, 0]
    found = of(x, backend, view="normal")
    assert torch.equal(found[..., 0], found[..., 1])
    found = of(x, backend, view="extreme")
    apart = (found[..., 0] - found[..., 1]).abs().flatten(1).max(1).values
    assert apart.max() < 0.1
    assert 20 < (apart > 1e-3).sum() < 60


def test_torchs_generator_is_left_alone():
    state = torch.get_rng_state()
    of(clips(), None, view="extreme")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_result_lies_as_the_encoder_reads_it(backend):
    found = of(clips(), backend, view="normal")
    assert found.permute(0, 4, 2, 3, 1).is_contiguous()


# The operator


@needs_operators
def test_the_op_itself_keeps_within_its_memory():
    x, index = clips(), torch.arange(3)
    rest = 3, 0, 2, LAYOUT.flip, 0, None, False, torch.float32, [0.0] * 7
    for bad in (index + 28, index - 1):
        with pytest.raises(RuntimeError, match="index must lie in 0..29"):
            torch.ops.msclr.augment(x, bad, index, index, *rest)
    with pytest.raises(RuntimeError, match="epochs must be int64"):
        torch.ops.msclr.augment(x, index, index, index[:2], *rest)
    with pytest.raises(RuntimeError, match="flip must lie in 0..16"):
        torch.ops.msclr.augment(x, index, index, index, 3, 0, 2, LAYOUT.flip + 1, *rest[4:])
    for amounts, message in (([0.0] * 6, "7 numbers"), ([1e9] + [0.0] * 6, "pad must lie in 0..T")):
        with pytest.raises(RuntimeError, match=message):
            torch.ops.msclr.augment(x, index, index, index, *rest[:-1], amounts)


INDEX = torch.arange(4)
WRONG = {
    "clips": [torch.zeros(4, 2, 5, 17, 2), torch.zeros(4, 5, 17, 3), torch.zeros(4, 2, 0, 17, 3),
              torch.zeros(4, 2, 5, 17, 3, dtype=torch.int32), clips().double(),
              clips().transpose(1, 2)],
    "index": [INDEX.int(), INDEX[None], INDEX - 1, INDEX + 27, INDEX.to("meta")],
    "epochs": [INDEX.float(), INDEX[:3]],
    "numbers": [INDEX.int(), INDEX[:3]],
    "view": ["mild"],
    "stream": ["speed"],
    "flip": [None, LAYOUT.flip[:5], LAYOUT.flip + 1, LAYOUT.flip.int()],
    "parents": [None, LAYOUT.parents[:5], LAYOUT.parents - 1, LAYOUT.parents.float()],
    "dtype": [torch.float64, torch.int8],
    "strengths": [{"sheer": 0.5}, {"shear": -1.0}, {"crop": 1.1}, {"noise": float("nan")},
                  {"blur": 0.05}, {"flip": 2}],
    "backend": ["quantum"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, values in WRONG.items() for v in values], ids=lambda v: ""
)
def test_what_does_not_fit_is_named(name, value):
    given = {"clips": clips(), "index": INDEX, "epochs": INDEX, "numbers": INDEX, **tables()}
    given |= {"seed": 0, "purpose": 0, "view": "extreme", "stream": "bone", name: value}
    with pytest.raises(ValueError, match=rf"^{name}\b") as error:
        augment(given.pop("clips"), given.pop("index"), given.pop("epochs"), **given)
    assert "\n" not in str(error.value)


def test_tables_are_wanted_only_where_they_are_read():
    x = clips()
    plain = augment(x, INDEX, INDEX, seed=0, purpose=0, view="normal", stream="motion")
    assert np.isfinite(plain.numpy()).all()


# Strengths


PAPER = {"shear": 0.5, "crop": 1 / 6, "rotation": 30.0, "noise": 0.01, "blur": 2.0, "flip": 0.5,
         "axis": 0.5}  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("view", ["normal", "extreme"])
def test_the_papers_strengths_are_the_defaults(backend, view):
    assert torch.equal(
        of(clips(), backend, view=view, strengths=PAPER), of(clips(), backend, view=view)
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_view_with_all_switched_off_is_the_clip(backend):
    off = of(clips(), backend, view="extreme", strengths=dict.fromkeys(PAPER, 0))
    assert torch.equal(off, of(clips(), backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_switched_off_leaves_what_is_drawn_for_the_others(backend):
    """Without shear and rotation an extreme view is, but for what is off, a gathered clip."""
    rest = dict.fromkeys(("shear", "rotation", "noise", "blur"), 0)
    x = clips()
    both = of(x, backend, view="extreme", strengths=rest)
    unflipped = of(x, backend, view="extreme", strengths=rest | {"flip": 0})
    flipped = of(x, backend, view="extreme", strengths=rest | {"flip": 1})
    is_flipped = torch.tensor([torch.equal(a, b) for a, b in zip(both, flipped, strict=True)])
    assert 0 < is_flipped.sum() < len(x)
    assert torch.equal(both[~is_flipped], unflipped[~is_flipped])


@pytest.mark.parametrize("backend", BACKENDS)
def test_strengths_scale_what_they_are_of(backend):
    x = torch.zeros(64, 1, 12, 17, 3)
    x[..., 0] = 1.0
    only = dict.fromkeys(PAPER, 0)
    sheared = of(x, backend, view="normal", strengths=only | {"shear": 0.2})[
        :, 1:
    ]  # y, z of (1, 0, 0)
    assert 0.15 < sheared.abs().max() <= 0.2
    noisy = of(x, backend, view="extreme", strengths=only | {"noise": 0.3}) - of(x, backend)
    noisy = noisy[noisy.flatten(1).any(1)]
    assert abs(float(noisy.std()) - 0.3) < 0.01
    axis = of(x, backend, view="extreme", strengths=only | {"axis": 1})
    assert 10 < (axis[:, 0] == 0).all(-1).all(-1).all(-1).sum() < 35  # a third of the clips


def test_a_crop_of_a_sixth_is_a_whole_division():
    from msclr.kernels.augment.amounts import amounts_of

    assert [amounts_of(None, t).pad for t in range(1, 2000)] == [t // 6 for t in range(1, 2000)]
