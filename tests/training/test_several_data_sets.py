"""Training on several data sets: what is drawn, that a run resumes exactly, what it is worth."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch

import msclr
from msclr.config import load_recipe, make_recipe
from msclr.data import MixedDataset, SkeletonDataset, open_store, prepare_arrays
from msclr.encoder.features import mean_cosine
from msclr.errors import InputError
from msclr.evaluation import evaluate_knn, evaluate_transfer, open_run
from msclr.evaluation.protocols import features_of
from msclr.training import Pretraining, pretrain
from msclr.training.batches import ViewMaker
from msclr.training.build import build_sampler
from msclr.training.choice import LayoutChoice
from msclr.training.distributed import Ranks
from msclr.training.log import read_knn
from msclr.training.sampler import Draw, EvenSampler
from tests.tiny import (
    FRAMES,
    LAYOUTS,
    OTHER,
    TRAIN,
    prepare_other,
    prepare_tiny,
    tiny_clips,
    tiny_values,
)
from tests.training.runs import assert_same_run

(H36M, KINECT), SMPL = LAYOUTS, "smpl_24"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("several")
    return [prepare_tiny(root / "a"), prepare_other(root / "b")]


@pytest.fixture(scope="module")
def mixed(folders):
    return MixedDataset(folders, "train")


def recipe_of(folders, out, **changes):
    values = tiny_values(folders[0], out, **{"layouts": None, **changes})
    return make_recipe(values | {"data": [str(folder) for folder in folders]})


@pytest.fixture(scope="module")
def run_folder(folders, tmp_path_factory):
    """Sets of two layouts each, one of them in both, with a third derived in one of them."""
    out = tmp_path_factory.mktemp("trained") / "run"
    return pretrain(recipe_of(folders, out, derive=["coco_19", SMPL], steps=4, draw="even"))


# What is drawn


def test_sets_are_drawn_in_proportion_or_evenly(mixed, folders, tmp_path):
    counts = {}
    for draw in ("proportion", "even"):
        sampler = build_sampler(recipe_of(folders, tmp_path, draw=draw), mixed)
        clips = torch.cat([sampler.draw(s).clips for s in range(3 * sampler.steps_per_epoch)])
        counts[draw] = (clips >= TRAIN).float().mean().item()
    assert counts["proportion"] == pytest.approx(OTHER / (TRAIN + OTHER), abs=0.02)
    assert counts["even"] == 0.5


def test_even_batches_hold_passes_over_each_set():
    sizes, batch = [5, 3, 9], 10
    sampler = EvenSampler(sizes, 2, batch, 3)
    assert sampler.steps_per_epoch == 9 * 3 * 2 // 10
    draws = [sampler.draw(step) for step in range(27)]
    for draw in draws:
        of_set = np.searchsorted([5, 8], draw.clips.numpy(), side="right")
        assert set(np.bincount(of_set, minlength=3)) <= {3, 4}
    seen = Counter(x for d in draws for x in zip(*(r.tolist() for r in d), strict=True))
    assert set(seen.values()) == {1}  # 90 clips of each set: a clip once in each of its passes
    assert {n for c, n in seen if c < 5} == set(range(18))
    orders = {tuple(c for (c, n) in seen if c < 5 and n == each) for each in range(18)}
    assert len(orders) > 10
    for step in (26, 0, 13, 12):
        again = EvenSampler(sizes, 2, batch, 3).draw(step)
        assert all(map(torch.equal, again, draws[step]))
        assert all(map(torch.equal, sampler.draw(step), draws[step]))
    with pytest.raises(InputError, match="batch_size 55 exceeds an epoch of 3 x 9 clips x 2"):
        EvenSampler(sizes, 2, 55, 3)


def test_a_clip_is_seen_under_its_own_sets_layouts(mixed):
    clips = torch.tensor([0, TRAIN]).repeat_interleave(4000)
    random = torch.Generator().manual_seed(0)
    query, key = LayoutChoice(mixed, "sample").pairs_of(
        clips, lambda count: torch.rand(count, generator=random)
    )
    pairs = Counter(zip((clips >= TRAIN).tolist(), query.tolist(), key.tolist(), strict=True))
    wanted = {(False, q, k) for q in (0, 1) for k in (0, 1)}
    assert pairs.keys() == wanted | {(True, q, k) for q in (1, 2) for k in (1, 2)}
    assert all(abs(count - 1000) < 150 for count in pairs.values())


def test_a_share_of_the_views_is_derived(folders):
    mixed = MixedDataset(folders, "train", derive=["coco_19", SMPL])
    clips = torch.tensor([0, TRAIN]).repeat_interleave(4000)
    random = torch.Generator().manual_seed(0)
    choice = LayoutChoice(mixed, "sample", 0.2)
    drawn = choice.pairs_of(clips, lambda count: torch.rand(count, generator=random))
    names = np.array(list(mixed.layouts))
    for rows in drawn:
        first, second = (Counter(names[part]) for part in (rows[:4000], rows[4000:]))
        shares = {H36M: 0.4, KINECT: 0.4, "coco_19": 0.1, SMPL: 0.1}
        assert {k: v / 4000 for k, v in first.items()} == pytest.approx(shares, abs=0.03)
        shares = {KINECT: 0.4, SMPL: 0.4, "coco_19": 0.2}
        assert {k: v / 4000 for k, v in second.items()} == pytest.approx(shares, abs=0.03)
    pairs = Counter(zip(*drawn[:, :4000], strict=True))
    assert pairs[(0, 0)] / 4000 == pytest.approx(0.16, abs=0.03)  # both are drawn by themselves


@pytest.mark.parametrize("pairs", ["sample", "batch"])
def test_views_of_a_clip_do_not_depend_on_the_other_sets(mixed, folders, pairs):
    alone = SkeletonDataset(folders[0], "train")
    draw = Draw(torch.tensor([3, 8, 3]), torch.tensor([0, 2, 1]))
    more = Draw(torch.tensor([3, TRAIN + 1, 8, 3]), torch.tensor([0, 0, 2, 1]))
    one, both = (ViewMaker(data, "joint", pairs, 5, True, jitter=0.1) for data in (alone, mixed))
    batches = one(draw, 7), both(more, 7)
    for kind in ("query", "key", "extreme"):
        rows = [{}, {}]
        for found, batch in zip(rows, batches, strict=True):
            for name, view in getattr(batch, kind).items():
                named = ((name, x) for x in view.x)
                found |= dict(zip(view.rows.tolist(), named, strict=True))
        for mine, theirs in ((0, 0), (1, 2), (2, 3)):
            assert rows[0][mine][0] == rows[1][theirs][0]
            assert torch.equal(rows[0][mine][1], rows[1][theirs][1])


@pytest.mark.parametrize(
    "changes", [{"pairs": "batch"}, {"pairs": "sample"}, {"pairs": "all"}, {"method": "multiview"}]
)
def test_a_rank_whose_clips_are_of_one_set_takes_part_in_all_layouts(folders, tmp_path, changes):
    run = Pretraining(recipe_of(folders, tmp_path, **changes), Ranks(), torch.device("cpu"))
    draw = Draw(torch.arange(8), torch.zeros(8, dtype=torch.int64))
    assert list(run.views(draw, 0).query) == [H36M, KINECT, SMPL]
    run._draw = lambda step: draw
    run.step(0)
    (record,) = run.take_records()
    assert np.isfinite(record.loss)
    run.save(1)  # refuses weights that are not finite
    run.close()


# Runs


@pytest.mark.parametrize(
    "changes",
    [{}, {"pairs": "batch"}, {"pairs": "all"}, {"method": "multiview"}, {"method": "crossclr"},
     {"derive": [SMPL], "derived_share": 0.3}, {"joint_jitter": 0.2, "stream": "bone"}],
    ids=lambda x: "-".join(x) or "plain",
)  # fmt: skip
def test_a_run_resumes_exactly(folders, tmp_path, changes):
    changes = {"draw": "even", "steps": 4, "checkpoint_every": 2} | changes
    whole = pretrain(recipe_of(folders, tmp_path / "whole", **changes))

    def stop(step, *_):
        if step == 3:
            raise KeyboardInterrupt

    recipe = recipe_of(folders, tmp_path / "run", **changes)
    with pytest.raises(KeyboardInterrupt):
        pretrain(recipe, on_step=stop)
    assert_same_run(pretrain(recipe, resume=True), whole)


def test_it_says_what_each_set_gives_and_resumes_from_the_same_sets_alone(folders, tmp_path):
    said = []
    given = {"derive": ["coco_19"], "steps": 2}
    pretrain(recipe_of(folders, tmp_path / "run", **given), say=said.append)
    assert f"{folders[1]}: {OTHER} clips under {KINECT}, {SMPL}, coco_19 (derived)" in said
    for other in (folders[::-1], [folders[0], shutil.copytree(folders[0], tmp_path / "copy")]):
        recipe = recipe_of(other, tmp_path / "run", **given)
        with pytest.raises(InputError, match="was trained on other data than"):
            pretrain(recipe, resume=True)


def test_all_pairs_want_as_many_layouts_of_each_set(folders, tmp_path):
    with pytest.raises(InputError, match="all pairs of layouts want as many of each data set"):
        pretrain(recipe_of(folders, tmp_path / "run", pairs="all", derive=["coco_19", SMPL]))
    with pytest.raises(InputError, match="clips of .*b have kinectv1_20 alone"):
        layouts = [H36M, KINECT]
        pretrain(recipe_of(folders, tmp_path / "run", method="multiview", layouts=layouts))
    assert not (tmp_path / "run").exists()


def test_a_run_is_evaluated_on_the_set_that_is_named(folders, run_folder):
    run = open_run(run_folder)
    with pytest.raises(InputError, match=r"trained on several data sets.*--data .*a or --data .*b"):
        evaluate_knn(run, KINECT)
    results = [evaluate_knn(run, KINECT, folder) for folder in folders]
    kept = list((run_folder / "evaluation").glob("knn-*.json"))
    assert sorted(json.loads(x.read_text())["data"] for x in kept) == sorted(map(str, folders))
    assert all(result["seen_in_pretraining"] for result in results)
    sources = [run.on(open_store(folder)).derived for folder in folders]
    assert sources == [{"coco_19": H36M, SMPL: KINECT}, {"coco_19": KINECT}]
    for folder, layouts in zip(folders, ([SMPL, "coco_19"], ["coco_19"]), strict=True):
        assert all(evaluate_knn(run, layout, folder)["seen_in_pretraining"] for layout in layouts)


def test_labels_of_one_set_are_transferred_to_another(folders, run_folder):
    run = open_run(run_folder)
    with pytest.raises(InputError, match=r"--train-data .*a or --train-data .*b"):
        evaluate_transfer(run, KINECT, KINECT, folders[0])
    result = evaluate_transfer(run, H36M, SMPL, folders[1], train_data=folders[0])
    assert (result["train_data"], result["data"]) == tuple(map(str, folders))
    within = evaluate_transfer(run, H36M, KINECT, train_data=folders[0])
    assert within["data"] == str(folders[0])


def test_its_encoder_prepares_clips_as_the_set_of_their_layout(folders, run_folder, tmp_path):
    encoder = msclr.load(run_folder)
    assert encoder.preparation.of(H36M).bodies == encoder.preparation.of(KINECT).bodies == 2
    assert encoder.preparation.bodies == encoder.preparation.of("jta_22").bodies == 2
    lone = pretrain(recipe_of(folders, tmp_path / "run", layouts=[H36M, SMPL], steps=1))
    encoder, run = msclr.load(lone), open_run(lone)
    assert [encoder.preparation.of(x).bodies for x in (H36M, SMPL)] == [2, 1]
    assert encoder.preparation.frame == "camera"
    for folder, layout in zip(folders, (H36M, SMPL), strict=True):
        val = open_store(folder).split("val")
        clips = [x[b] for x, b in zip(val.views[layout], val.bodies, strict=True)]
        if layout == SMPL:  # a second body, which the set had no room for, and which moves less
            clips = [np.concatenate([x, x * 0.5], axis=0) for x in clips]
        features = features_of(run, layout, folder).val
        assert torch.equal(encoder.embed(clips, layout=layout), features.cpu())


def test_the_recipe_of_a_run_on_several_sets_is_read_back(run_folder, folders):
    recipe = load_recipe(str(run_folder / "recipe.yaml"))
    assert recipe.data == [str(folder) for folder in folders] and recipe.draw == "even"


# What is measured on the way


@pytest.fixture(scope="module")
def watched(folders, tmp_path_factory):
    """A run whose sets have room for unlike numbers of bodies, which here count when absent."""
    given = {"derive": ["coco_19"], "steps": 6, "bodies": "all", "draw": "even"}
    out = tmp_path_factory.mktemp("watched") / "run"
    said = []
    recipe = recipe_of(folders, out, **given, batch_size=30, knn_every=3, tsne_every=1)
    return pretrain(recipe, say=said.append), said


def test_accuracies_are_those_of_evaluate_knn_on_each_set(folders, watched):
    folder, said = watched
    rows = [row for row in read_knn(folder / "knn.csv") if row.step == 6]
    layouts = [[H36M, KINECT, "coco_19"], [KINECT, SMPL, "coco_19"]]
    of_set = dict(zip("ab", folders, strict=True))
    wanted = [(name, x) for name, of in zip("ab", layouts, strict=True) for x in of]
    assert [(row.data, row.layout) for row in rows] == wanted
    run = open_run(folder)
    for row in rows:
        features = features_of(run, row.layout, of_set[row.data])
        assert row.mean_cosine == pytest.approx(mean_cosine(features.val), abs=1e-12)
        found = evaluate_knn(run, row.layout, of_set[row.data], features=features)
        assert row.accuracy == found["by_k"]["1"]
        line = f"1-NN {row.accuracy:.1f} % ({row.data}, joint, {row.layout}"
        assert any(x.startswith("step 6: ") and line in x for x in said)


def test_each_set_has_its_own_curves_and_maps(watched):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, _ = watched
    board = EventAccumulator(str(folder / "tensorboard"), {"images": 0}).Reload()
    assert [e.step for e in board.Scalars(f"knn/b/joint/{SMPL}")] == [3, 6]
    assert len([x for x in board.Tags()["scalars"] if x.startswith("knn/a/joint/")]) == 3
    assert [e.step for e in board.Images(f"tsne/a_joint_{KINECT}")] == [4]
    assert len(list((folder / "tsne").glob("00000004_b_joint_*.png"))) == 3


def test_a_set_of_few_val_clips_is_left_out_and_said(folders, tmp_path, caplog):
    given = tiny_clips(LAYOUTS)
    prepare_arrays(tmp_path / "c", **given | {"split": ["train"] * 30}, frames=FRAMES)
    both = [folders[0], tmp_path / "c"]
    run = pretrain(recipe_of(both, tmp_path / "run", steps=1, knn_every=1))
    assert {row.data for row in read_knn(run / "knn.csv")} == {"a"}
    assert f"{both[1]} has 30 train and 0 val clips; knn_every and tsne" in caplog.text
    with pytest.raises(InputError, match="c has 30 train and 0 val clips; knn_every and tsne"):
        pretrain(recipe_of(both[1:], tmp_path / "other", steps=1, knn_every=1))
    assert not (tmp_path / "other").exists()


def test_sets_in_folders_of_one_name_are_numbered(folders, tmp_path):
    again = shutil.copytree(folders[1], tmp_path / "a")
    run = pretrain(recipe_of([folders[0], again], tmp_path / "run", steps=1, knn_every=1))
    assert {row.data for row in read_knn(run / "knn.csv")} == {"1_a", "2_a"}
