"""Training on random parts of the layouts as further conventions, and what is left of it after."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from msclr import load
from msclr.config import make_recipe
from msclr.data import MixedDataset, SkeletonDataset, open_store
from msclr.data.sub_layouts import SubLayouts
from msclr.errors import InputError
from msclr.evaluation import evaluate_knn, open_run
from msclr.evaluation.splits import data_layouts
from msclr.layouts import Layout, registry
from msclr.nn import load_pretrained
from msclr.training import Pretraining, pretrain
from msclr.training.batches import ViewMaker
from msclr.training.checkpoint import load_checkpoint
from msclr.training.distributed import Ranks
from msclr.training.header import header
from msclr.training.log import read_knn
from msclr.training.sampler import Draw
from tests.tiny import LAYOUTS, prepare_other, prepare_tiny, tiny_clips, tiny_recipe, tiny_values
from tests.training.runs import assert_same_run

H36M, KINECT = LAYOUTS
SUBS = [f"{H36M}_sub1", f"{KINECT}_sub1"]


@pytest.fixture(scope="module")
def run_folder(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("subs") / "run"
    return pretrain(tiny_recipe(data, out, sub_layouts=1, knn_every=6))


def opened(data, tmp_path, **changes):
    return Pretraining(tiny_recipe(data, tmp_path, **changes), Ranks(), torch.device("cpu"))


@pytest.mark.parametrize("resident", [True, False])
def test_clips_are_the_layouts_own_without_some_joints(data, resident):
    options = {"resident": resident, "derive": ["jta_22"]}
    dataset = SkeletonDataset(data, "train", sub_layouts=SubLayouts(2, 7), **options)
    whole = [*LAYOUTS, "jta_22"]
    assert list(dataset.layouts) == [*whole, *(f"{x}_sub{i}" for x in whole for i in (1, 2))]
    assert dataset.parts[0].whole == whole
    again = pickle.dumps(dataset)
    assert resident or len(again) < 50_000  # names of files, not clips
    index = torch.tensor([4, 0, 4])
    for name, source in dataset.parts[0].sub_layouts.items():
        joints = dataset.layouts[name].joints
        kept = [dataset.layouts[source].joints.index(joint) for joint in joints]
        whole = dataset.clips(source, index)
        assert 0 < len(kept) < whole.shape[3]
        assert torch.equal(dataset.clips(name, index), whole[..., kept, :])
        assert torch.equal(pickle.loads(again).clips(name, index), whole[..., kept, :])
    dataset.close()


def test_data_sets_with_the_same_layout_have_the_same_parts_of_it(data, tmp_path):
    other = prepare_other(tmp_path / "other")
    mixed = MixedDataset([data, other], "train", sub_layouts=SubLayouts(1, 7))
    one, two = (part.sub_layouts for part in mixed.parts)
    assert set(one) & set(two) == {f"{KINECT}_sub1"} and "smpl_24_sub1" in two
    alone = SkeletonDataset(other, "train", sub_layouts=SubLayouts(1, 7))
    index = torch.arange(len(alone))
    name = f"{KINECT}_sub1"
    found = mixed.clips(name, index + mixed.parts[0].clips)
    assert torch.equal(found[:, : alone.bodies.shape[1]], alone.clips(name, index))
    assert set(mixed.about()["sub_layouts"]) == {*one, *two}


def test_every_layout_is_drawn_as_often_or_by_their_share(data, tmp_path):
    draw = Draw(torch.arange(22).repeat(40), torch.arange(40).repeat_interleave(22))
    for share, wanted in ((None, [0.25] * 4), (0.2, [0.4, 0.4, 0.1, 0.1])):
        run = opened(data, tmp_path, sub_layouts=1, derived_share=share)
        drawn = run.views._plan(draw, 0)
        for numbers in (drawn.query, drawn.key):
            counts = np.bincount(numbers, minlength=4) / len(numbers)
            np.testing.assert_allclose(counts, wanted, atol=0.06)
        run.close()


@pytest.mark.parametrize("stream", ["joint", "bone", "motion"])
def test_views_of_each_stream_have_the_joints_and_bones_of_their_graph(data, stream):
    dataset = SkeletonDataset(data, "train", sub_layouts=SubLayouts(1, 7))
    maker = ViewMaker(dataset, stream, "all", 3, extreme=False)
    batch = maker(Draw(torch.arange(4), torch.zeros(4, dtype=torch.int64)), 0)
    assert set(batch.query) == {*LAYOUTS, *SUBS} and batch.layouts_per_clip == 4
    for name in SUBS:
        view, layout = batch.query[name].x, dataset.layouts[name]
        assert view.shape[3] == layout.num_joints and view.isfinite().all() and view.any()
        if stream == "bone":
            roots = layout.parents == torch.arange(layout.num_joints)
            assert not view[..., roots, :].any() and view[0, ..., ~roots, 0].any(dim=(0, 1)).all()


@pytest.mark.parametrize("method", ["multiview", "crossclr", "aimclr"])
def test_methods_train_on_them_and_resume_bit_for_bit(method, data, tmp_path):
    options = {"sub_layouts": 1, "method": method, "layouts": [KINECT]}
    options |= {} if method == "multiview" else {"pairs": "all"}
    whole = pretrain(tiny_recipe(data, tmp_path / "whole", **options, steps=6))
    halves = tmp_path / "halves"
    pretrain(tiny_recipe(data, halves, **options, steps=3))
    run = pretrain(tiny_recipe(data, halves, **options, steps=6), resume=True)
    assert_same_run(run, whole)
    state = load_checkpoint(run / "checkpoint.pt")
    assert state["sub_layouts"] == {f"{KINECT}_sub1": KINECT}
    drawn = [k for k in state["method"] if f"edge_importance.{KINECT}_sub1." in k]
    assert any((state["method"][k] != 1).any() for k in drawn)  # it was trained


def test_a_run_is_evaluated_without_them(run_folder, data):
    run = open_run(run_folder)
    assert run.layouts == list(run.encoder.layouts) == data_layouts(run) == list(LAYOUTS)
    drawn = load_checkpoint(run_folder / "checkpoint.pt")["sub_layouts"]
    assert drawn == {SUBS[0]: H36M, SUBS[1]: KINECT}
    recipe = tiny_recipe(data, run_folder, sub_layouts=1)
    began = Pretraining(recipe, Ranks(), torch.device("cpu")).method.query.encoder.state_dict()
    random = open_run(run_folder, random=True)
    assert random.layouts == list(LAYOUTS)
    for key, value in random.encoder.state_dict().items():
        assert torch.equal(value, began[key]), key
    seen = {x.layout: x.accuracy for x in read_knn(run_folder / "knn.csv") if x.step == 12}
    assert seen == {name: evaluate_knn(run, name)["by_k"]["1"] for name in LAYOUTS}


def test_the_encoder_is_the_one_that_was_trained(run_folder, data):
    weights = load_checkpoint(run_folder / "checkpoint.pt")["method"]
    loaded = load_pretrained(run_folder / "checkpoint.pt")
    for encoder in (open_run(run_folder).encoder, loaded.encoder):
        assert list(encoder.layouts) == list(LAYOUTS)
        for key, value in encoder.state_dict().items():
            assert torch.equal(value, weights[f"query.encoder.{key}"]), key
    assert any(SUBS[0] in key for key in loaded.unused_keys)
    encoder = load(run_folder)
    assert list(encoder.layouts) == list(LAYOUTS)
    clips = tiny_clips()["views"][KINECT][:3]
    assert encoder.embed(clips, layout=KINECT).isfinite().all()


def test_another_run_may_begin_with_it(run_folder, data, tmp_path):
    recipe = tiny_recipe(
        data, tmp_path / "next", sub_layouts=2, seed=9, init_from=str(run_folder), steps=2
    )
    lines = []
    pretrain(recipe, say=lines.append)
    (line,) = [line for line in lines if line.startswith("begins with")]
    assert f"the layout {SUBS[0]} (unknown there)" in line and f"layout {H36M} (" not in line


def test_a_resume_that_would_draw_others_is_refused(data, tmp_path, monkeypatch):
    recipe = tiny_recipe(data, tmp_path / "run", sub_layouts=1, steps=4)
    pretrain(tiny_recipe(data, tmp_path / "run", sub_layouts=1, steps=2))
    monkeypatch.setattr("msclr.data.sub_layouts.LEFT_OUT", 0.7)  # as a later version might
    with pytest.raises(InputError, match=f"other joints or bones under the name {SUBS[0]}"):
        pretrain(recipe, resume=True)
    monkeypatch.undo()
    pretrain(recipe, resume=True)


def test_the_run_says_which_joints_they_have(data, tmp_path):
    run = opened(data, tmp_path, sub_layouts=1)
    lines = header(run, 0)
    assert lines[0].endswith(f"clips under {H36M}, {KINECT}")
    assert lines[1] == f"{SUBS[0]}: {' '.join(run.dataset.layouts[SUBS[0]].joints)}"
    run.close()


def test_what_cannot_be_is_refused(data, tmp_path):
    values = tiny_values(data, tmp_path)
    with pytest.raises(InputError, match="sub_layouts must be int, got 0.5"):
        make_recipe(values | {"sub_layouts": 0.5})
    with pytest.raises(InputError, match="give derive=LAYOUT or sub_layouts=1"):
        make_recipe(values | {"derived_share": 0.5})
    assert make_recipe(values | {"derived_share": 0.5, "sub_layouts": 1}).sub_layouts == 1
    assert make_recipe(values).sub_layouts == 0


def test_a_layout_of_the_data_is_not_overwritten(tmp_path, monkeypatch):
    clash = Layout.from_dict(registry.get(KINECT).to_dict() | {"name": SUBS[0], "aliases": []})
    monkeypatch.setitem(registry._by_name(), SUBS[0], clash)
    folder = prepare_tiny(tmp_path / "data", (H36M, SUBS[0]))
    assert SUBS[0] in open_store(folder).layouts
    with pytest.raises(InputError, match=f"has a layout {SUBS[0]}, which sub_layouts would make"):
        SkeletonDataset(folder, "train", sub_layouts=SubLayouts(1))
