"""The order of the clips and the views made of them: they follow from the step's number alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from msclr import layouts
from msclr.data import SkeletonDataset
from msclr.data.store import StoreWriter
from msclr.errors import InputError
from msclr.kernels import augment
from msclr.methods import Batch
from msclr.training.batches import ViewMaker
from msclr.training.distributed import Ranks
from msclr.training.sampler import Draw, Sampler

LAYOUTS = ["h36m_17", "kinectv1_20", "smpl_24"]
CLIPS, FRAMES, BODIES, SEED = 12, 6, 2, 3
KINDS = ("query", "key", "extreme")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> SkeletonDataset:
    """Twelve clips under three layouts; every third one has a second body."""
    out = tmp_path_factory.mktemp("batches") / "set"
    rng = np.random.default_rng(0)
    described = {"name": "twelve", "layouts": [layouts.get(n) for n in LAYOUTS], "source": "a test"}
    with StoreWriter(out, **described, classes=["sit"], frames=FRAMES, bodies=BODIES) as writer:
        for i in range(CLIPS):
            present = np.array([True, i % 3 == 0])
            shapes = {n: (BODIES, FRAMES, layouts.get(n).num_joints, 3) for n in LAYOUTS}
            views = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
            for x in views.values():
                x[~present] = 0
            writer.add("train", views, present, 0, f"clip {i}")
        writer.finish()
    return SkeletonDataset(out, "train")


def rows_of(views) -> dict[int, tuple]:
    """Each row of a view: its layout, its clip as the encoder takes it, its bodies."""
    found = {}
    for name, view in views.items():
        for row, x, bodies in zip(view.rows.tolist(), view.x, view.bodies, strict=True):
            assert row not in found
            found[row] = (name, x, bodies)
    return found


def assert_equal_rows(found: tuple, wanted: tuple) -> None:
    assert found[0] == wanted[0]
    torch.testing.assert_close(found[1], wanted[1], rtol=0, atol=1e-6)
    assert torch.equal(found[2], wanted[2])


def maker(dataset, pairs: str, extreme: bool = True, stream: str = "joint") -> ViewMaker:
    return ViewMaker(dataset, stream, pairs, SEED, extreme)


def a_draw(step: int = 0, batch_size: int = 8) -> Draw:
    return Sampler(CLIPS, len(LAYOUTS), batch_size, SEED).draw(step)


# Sampler


@pytest.mark.parametrize("batch_size", [4, 9, 18, 36])
def test_an_epoch_holds_each_clip_once_per_layout(batch_size):
    sampler = Sampler(CLIPS, 3, batch_size, SEED)
    assert sampler.steps_per_epoch == 36 // batch_size
    for epoch in (0, 4):
        steps = range(epoch * 36 // batch_size, (epoch + 1) * 36 // batch_size)
        draws = [sampler.draw(step) for step in steps]
        assert all(draw.clips.shape == draw.passes.shape == (batch_size,) for draw in draws)
        seen = Counter(
            pair for draw in draws for pair in zip(*(r.tolist() for r in draw), strict=True)
        )
        # a pass numbers its clips once, and passes count on over the whole run
        assert seen == Counter((c, 3 * epoch + p) for c in range(CLIPS) for p in range(3))


def test_a_partial_batch_is_left_out():
    sampler = Sampler(5, 2, 4, SEED)  # ten draws an epoch, two of them in no batch
    assert sampler.steps_per_epoch == 2
    assert sampler.draw(1).passes.tolist() == [0, 1, 1, 1]
    assert sampler.draw(2).passes.tolist() == [2, 2, 2, 2]


def test_passes_epochs_and_seeds_are_shuffled_apart():
    orders = [
        Sampler(50, 2, 50, seed).draw(step).clips.tolist() for seed in (0, 1) for step in range(6)
    ]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in [*orders, range(50)]}) == 13


def test_any_place_is_equally_likely_for_a_clip():
    sampler = Sampler(8, 1, 8, SEED)
    places = torch.stack([sampler.draw(step).clips.argsort() for step in range(400)])
    for clip in range(8):
        counts = places[:, clip].bincount(minlength=8)
        assert ((counts - 50).abs() < 30).all()  # the standard deviation is 6.6


def test_any_step_can_be_drawn_first():
    whole = Sampler(CLIPS, 3, 8, SEED)
    draws = [whole.draw(step) for step in range(10)]
    for step in (9, 0, 5, 4):
        resumed = Sampler(CLIPS, 3, 8, SEED).draw(step)
        assert torch.equal(resumed.clips, draws[step].clips)
        assert torch.equal(resumed.passes, draws[step].passes)
        assert torch.equal(whole.draw(step).clips, draws[step].clips)  # and going back


def test_a_batch_larger_than_an_epoch_is_refused():
    Sampler(CLIPS, 3, 36, SEED)
    with pytest.raises(InputError, match="batch_size 37 exceeds an epoch of 12 clips x 3 layouts"):
        Sampler(CLIPS, 3, 37, SEED)


# ViewMaker


@pytest.mark.parametrize("pairs", ["batch", "sample", "all"])
@pytest.mark.parametrize("extreme", [False, True])
def test_rows_are_covered_once_each(dataset, pairs, extreme):
    for step in range(6):
        batch = maker(dataset, pairs, extreme)(a_draw(step % 4), step)
        assert (batch.extreme is not None) == extreme
        rows = 8 * (3 if pairs == "all" else 1)
        assert batch.layouts_per_clip == (3 if pairs == "all" else 1)
        for kind in KINDS[: 3 if extreme else 2]:
            assert sorted(rows_of(getattr(batch, kind))) == list(range(rows))


def test_all_layouts_of_a_clip_are_adjacent_rows(dataset):
    batch, draw = maker(dataset, "all")(a_draw(), 0), a_draw()
    for kind in KINDS:
        for row, (name, _, bodies) in rows_of(getattr(batch, kind)).items():
            clip, layout = divmod(row, 3)
            assert name == LAYOUTS[layout]
            assert torch.equal(bodies, dataset.bodies[draw.clips[clip]])


def test_a_batch_pair_is_one_for_all_rows_and_follows_from_the_step(dataset):
    make, seen = maker(dataset, "batch", extreme=False), set()
    for step in range(60):
        batch = make(a_draw(batch_size=2), step)
        assert len(batch.query) == len(batch.key) == 1
        seen.add((*batch.query, *batch.key))
        if step < 5:
            other = make(a_draw(3, batch_size=1), step)
            assert (*other.query, *other.key) == (*batch.query, *batch.key)
    assert seen == {(a, b) for a in LAYOUTS for b in LAYOUTS}


def test_a_samples_pair_depends_on_the_clip_and_its_pass_alone(dataset):
    make = maker(dataset, "sample", extreme=False)
    clips = torch.arange(CLIPS)
    seen = Counter()
    for number in range(20):
        batch = make(Draw(clips, torch.full_like(clips, number)), step=number)
        query, key = rows_of(batch.query), rows_of(batch.key)
        pairs = [(query[row][0], key[row][0]) for row in range(CLIPS)]
        seen.update(pairs)
        if number < 3:  # other mates, another order, another step
            alone = make(Draw(clips[[7, 2]], torch.tensor([number, number])), step=99)
            first, second = rows_of(alone.query), rows_of(alone.key)
            assert [(first[row][0], second[row][0]) for row in (0, 1)] == [pairs[7], pairs[2]]
    assert set(seen) == {(a, b) for a in LAYOUTS for b in LAYOUTS}
    assert max(seen.values()) < 50  # of 240 draws over nine pairs


@pytest.mark.parametrize("stream", ["joint", "motion", "bone"])
def test_views_are_the_augmented_clips_in_their_stream(dataset, stream):
    draw = Draw(torch.tensor([5, 0, 9]), torch.tensor([2, 1, 2]))
    batch = maker(dataset, "all", stream=stream)(draw, 0)
    for number, name in enumerate(LAYOUTS):
        for purpose, kind in ((0, "query"), (1, "extreme"), (2, "key")):
            wanted = augment(
                dataset.views[name],
                draw.clips,
                draw.passes,
                seed=SEED,
                purpose=3 * number + purpose,
                view="extreme" if kind == "extreme" else "normal",
                flip=layouts.get(name).flip,
                stream=stream,
                parents=layouts.get(name).parents,
            )
            assert torch.equal(getattr(batch, kind)[name].x, wanted)
            assert torch.equal(getattr(batch, kind)[name].bodies, dataset.bodies[draw.clips])


@pytest.mark.parametrize("ahead", ["prefetched", "unasked", "wrongly prefetched"])
@pytest.mark.parametrize("pairs", ["batch", "sample", "all"])
def test_streamed_batches_are_those_of_clips_on_the_device(dataset, pairs, ahead):
    streamed = SkeletonDataset(dataset.store, "train", resident=False)
    make, wanted = maker(streamed, pairs), maker(dataset, pairs)
    for step in range(6):
        if ahead != "unasked":
            make.prefetch(a_draw(step + (ahead == "wrongly prefetched")), step)
        batch, resident = make(a_draw(step), step), wanted(a_draw(step), step)
        for kind in KINDS:
            views, others = getattr(batch, kind), getattr(resident, kind)
            assert list(views) == list(others)
            for name in views:
                assert all(map(torch.equal, views[name][:3], others[name][:3]))


def test_a_batch_on_the_way_is_not_changed_by_the_next(dataset):
    make = maker(SkeletonDataset(dataset.store, "train", resident=False), "all")
    first = make(a_draw(0), 0)
    before = {name: view.x.clone() for name, view in first.query.items()}
    for step in range(1, 4):
        make.prefetch(a_draw(step), step)
        make(a_draw(step), step)
    assert all(torch.equal(first.query[name].x, x) for name, x in before.items())


@pytest.mark.parametrize("pairs", ["sample", "all"])
def test_a_clips_views_do_not_depend_on_its_batch(dataset, pairs):
    make, per_clip = maker(dataset, pairs), 3 if pairs == "all" else 1
    draw = a_draw(2)
    together = make(draw, 2)
    for i in (0, 3, 7):
        alone = make(Draw(draw.clips[i : i + 1], draw.passes[i : i + 1]), 5)
        for kind in KINDS:
            found, wanted = rows_of(getattr(alone, kind)), rows_of(getattr(together, kind))
            for row in range(per_clip):
                assert_equal_rows(found[row], wanted[i * per_clip + row])


def test_views_of_a_clip_differ_between_query_key_passes_and_layouts(dataset):
    clip = torch.tensor([4])
    views = []
    for number in (0, 1):
        batch = maker(dataset, "all")(Draw(clip, torch.tensor([number])), 0)
        views += [getattr(batch, kind)[LAYOUTS[0]].x for kind in KINDS]
    for i, a in enumerate(views):
        assert all((a - b).abs().max() > 1e-3 for b in views[:i])


@pytest.mark.parametrize("pairs", ["batch", "sample", "all"])
def test_shares_of_two_processes_make_up_the_batch_of_one(dataset, pairs):
    for step in range(3):
        draw = a_draw(step)
        whole = maker(dataset, pairs)(draw, step)
        shares: list[Batch] = []
        for rank in range(2):
            ranks = Ranks(rank, 2)
            shares.append(maker(dataset, pairs)(Draw(*map(ranks.share, draw)), step))
        for kind in KINDS:
            wanted = rows_of(getattr(whole, kind))
            half = len(wanted) // 2
            for rank, share in enumerate(shares):
                found = rows_of(getattr(share, kind))
                assert sorted(found) == list(range(half))
                for row in found:
                    assert_equal_rows(found[row], wanted[rank * half + row])
