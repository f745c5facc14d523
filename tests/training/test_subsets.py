"""Views that show a connected part of a layout's joints, or joints that slide along bones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from msclr import layouts
from msclr.config import load_recipe, make_recipe
from msclr.data.streams import to_stream
from msclr.errors import InputError
from msclr.layouts import Layout
from msclr.training import Pretraining
from msclr.training.batches import ViewMaker
from msclr.training.distributed import Ranks
from msclr.training.sampler import Draw
from msclr.training.subsets import CUTS, JointSubsets, slide_joints, take_places
from tests.tiny import tiny_recipe, tiny_values
from tests.training.test_no_waiting import WAITING, Recorder

CLIPS = torch.arange(600)


def drawn(layout: Layout, share: float = 1.0) -> np.ndarray:
    return JointSubsets(layout, share).draw(CLIPS, torch.zeros_like(CLIPS), 3, 5)


@pytest.mark.parametrize("name", layouts.names())
def test_kept_joints_are_connected_and_others_take_the_place_of_the_nearest_kept(name):
    layout = layouts.get(name)
    parents, joints = layout.parents.numpy(), np.arange(layout.num_joints)
    for place in drawn(layout)[:100]:
        kept = place == joints
        assert kept[layout.center_index] and kept[place].all()
        assert kept[parents[kept]].all()  # what leads from a kept joint to the centre is kept
        assert (place[~kept] == place[parents[~kept]]).all()
        roots = ~kept & kept[parents]
        assert roots.sum() <= CUTS and (~kept).sum() <= layout.num_joints * CUTS / 3


def test_the_share_is_that_of_views_with_fewer_joints():
    layout = layouts.get("kinectv2_25")
    fewer = [(drawn(layout, share) != np.arange(25)).any(axis=1).mean() for share in (0, 0.3, 1)]
    assert fewer[0] == 0 and 0.25 < fewer[1] < 0.35 and fewer[2] == 1
    removed = (drawn(layout) != np.arange(25)).mean(axis=0)
    hangs = layout.parents.numpy() == np.arange(25)
    assert (removed > 0).sum() >= 20 and not removed[hangs].any()  # all but the trunk


def test_joints_that_no_bone_joins_to_the_centre_and_a_layout_of_one_joint():
    loose = Layout("loose_4", ["a", "b", "c", "d"], [["b", "a"], ["c", "b"]], "a", flip=[])
    place = drawn(loose)
    assert (place[:, [0, 3]] == [0, 3]).all() and set(map(tuple, place)) == {(0, 1, 1, 3)}
    one = Layout("one_1", ["a"], [], "a", flip=[])
    assert (drawn(one) == 0).all()


@pytest.mark.parametrize("stream", ["joint", "motion", "bone"])
def test_a_stream_is_that_of_the_moved_joints(stream):
    layout = layouts.get("kinectv1_20")
    clips = torch.randn(8, 2, 5, 20, 3, generator=torch.Generator().manual_seed(0))
    place = drawn(layout)[:8]
    moved = torch.stack([x[:, :, torch.from_numpy(p)] for x, p in zip(clips, place, strict=True)])
    views = [to_stream(x, stream, layout).permute(0, 4, 2, 3, 1) for x in (clips, moved)]
    assert torch.equal(take_places(views[0], place, stream), views[1])
    assert not torch.equal(*views)


@pytest.mark.parametrize("stream", ["joint", "motion", "bone"])
def test_joints_slide_along_their_bones_and_no_other_way(stream):
    layout = layouts.get("kinectv1_20")
    parents = layout.parents.numpy()
    random = torch.Generator().manual_seed(0)
    clips = torch.randn(8, 2, 5, 20, 3, generator=random)
    along = torch.rand(8, 20, generator=random) - 0.5
    moved = clips + along[:, None, None, :, None] * (clips[..., parents, :] - clips)
    for planar in (False, True):
        if planar:
            moved[..., 2] = clips[..., 2]
        views = [
            to_stream(x, stream, layout, planar).permute(0, 4, 2, 3, 1) for x in (clips, moved)
        ]
        found = slide_joints(views[0], along.numpy(), parents, stream, planar)
        torch.testing.assert_close(found, views[1], rtol=0, atol=1e-5)
        assert not torch.equal(*views)
        assert torch.equal(
            found[..., layout.center_index, :], views[0][..., layout.center_index, :]
        )


def test_how_far_joints_slide_follows_from_clip_and_pass_and_is_bounded(data, tmp_path):
    run = Pretraining(tiny_recipe(data, tmp_path), Ranks(), torch.device("cpu"))
    shared = {"dataset": run.dataset, "stream": "joint", "pairs": "all", "seed": 3}
    plain, some = (ViewMaker(**shared, extreme=True, jitter=size) for size in (0, 0.25))
    draws = [Draw(torch.tensor(c), torch.tensor(p)) for c, p in (([4, 9], [0, 1]), ([9], [1]))]
    whole, lone = (some(draw, 0) for draw in draws)
    still = plain(draws[0], 0)
    for name, layout in run.dataset.layouts.items():
        parents = layout.parents.numpy()
        slid = []
        for kind in ("query", "key", "extreme"):
            x, of, again = (getattr(b, kind)[name].x[-1] for b in (whole, still, lone))
            assert torch.equal(x, again)
            bones = of[..., parents, :] - of
            share = ((x - of) * bones).sum((0, 1, 3)) / (bones * bones).sum((0, 1, 3)).clamp(1e-9)
            torch.testing.assert_close(x, of + share[:, None] * bones, rtol=0, atol=1e-4)
            slid.append(share[parents != range(len(parents))])
        slid = torch.cat(slid)
        assert slid.abs().max() < 0.2501 and slid.abs().max() > 0.2 and abs(slid.mean()) < 0.08
    run.close()


@pytest.mark.parametrize("pairs", ["sample", "all"])
def test_a_batch_follows_from_the_step_and_only_joints_move(pairs, data, tmp_path):
    run = Pretraining(tiny_recipe(data, tmp_path), Ranks(), torch.device("cpu"))
    plain, some, again = (
        ViewMaker(run.dataset, "joint", pairs, 3, True, subsets=share) for share in (0, 0.5, 0.5)
    )
    draw = Draw(torch.arange(8), torch.zeros(8, dtype=torch.int64))
    batches = [maker(draw, 0) for maker in (plain, some, again)]
    moved = []
    for name in run.dataset.layouts:
        for views in zip(*([b.query, b.key, b.extreme] for b in batches), strict=True):
            full, part, same = (view[name].x for view in views)
            assert torch.equal(part, same)
            moved.append((full != part).any(dim=4).any(dim=2).any(dim=1).any(dim=1))
    moved = torch.cat(moved).float().mean().item()
    assert 0.2 < moved < 0.8
    run.close()


def test_views_of_no_row_are_made_as_well(data, tmp_path):
    run = Pretraining(tiny_recipe(data, tmp_path), Ranks(), torch.device("cpu"))
    maker = ViewMaker(run.dataset, "joint", "sample", 3, False, subsets=1.0)
    batch = maker(Draw(torch.arange(1), torch.zeros(1, dtype=torch.int64)), 0)
    assert sorted(len(view.rows) for view in batch.query.values()) == [0, 1]
    run.close()


def test_a_step_with_subsets_has_no_operator_that_waits(data, tmp_path):
    recipe = tiny_recipe(data, tmp_path, joint_subsets=0.5, joint_jitter=0.1, mining_epoch=None)
    run = Pretraining(recipe, Ranks(), torch.device("cpu"))
    assert run.views.subsets
    with Recorder() as seen:
        run.step(0)
    assert "gather" in seen.names and not WAITING & set(seen.names) and not seen.masks
    run.close()


def test_the_recipe_key(tmp_path):
    values = tiny_values(tmp_path, tmp_path)
    assert make_recipe(values).joint_subsets == 0
    with pytest.raises(InputError, match=r"joint_subsets must lie in 0\.\.1, got 2"):
        make_recipe({**values, "joint_subsets": 2})
    given = load_recipe("small", ["data=a", "out=b", "joint_subsets=0.25"])
    assert given.joint_subsets == 0.25
