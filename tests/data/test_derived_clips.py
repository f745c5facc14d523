"""Layouts that a data set has not, derived as it is loaded and as it is trained on."""

from __future__ import annotations

import pickle

import pytest
import torch

from msclr.config import make_recipe
from msclr.data import SkeletonDataset, prepare_arrays, toy
from msclr.errors import InputError
from msclr.evaluation import evaluate_ensemble, evaluate_knn, open_run
from msclr.evaluation.splits import data_layouts
from msclr.training import pretrain
from tests.tiny import FRAMES, column, tiny_clips, tiny_recipe

SOURCE = "kinectv2_25"


@pytest.fixture(scope="module", params=["camera", "body"])
def folders(request, tmp_path_factory):
    """The same clips without and with the derived layouts, in a frame that is centred or not."""
    folder = tmp_path_factory.mktemp(request.param)
    clips = toy.generate(16, layouts=[SOURCE])
    options = {"frames": 12, "frame": request.param}
    prepare_arrays(folder / "plain", **clips, **options)
    prepare_arrays(folder / "ready", **clips, **options, derive=["h36m_17", "coco_19"])
    return folder


def test_as_if_it_had_been_prepared_so(folders):
    made = SkeletonDataset(folders / "plain", "train", derive=["h36m_17", "coco_19"])
    ready = SkeletonDataset(folders / "ready", "train")
    assert list(made.layouts) == list(ready.layouts) == [SOURCE, "h36m_17", "coco_19"]
    assert made.derived == {"h36m_17": SOURCE, "coco_19": SOURCE} and ready.derived == {}
    for name, wanted in ready.views.items():
        torch.testing.assert_close(made.views[name], wanted, rtol=0, atol=1e-6)


def test_streamed_clips_are_derived_alike_in_another_process_too(folders):
    made = SkeletonDataset(folders / "plain", "train", derive=["h36m_17"])
    streamed = SkeletonDataset(folders / "plain", "train", [], resident=False, derive=["h36m_17"])
    halves = SkeletonDataset(folders / "plain", "train", [], "cpu", "float16", False, ["h36m_17"])
    index = torch.tensor([5, 0, 2, 2])
    wanted = made.clips("h36m_17", index)
    assert list(streamed.layouts) == ["h36m_17"]
    assert torch.equal(streamed.clips("h36m_17", index), wanted)
    torch.testing.assert_close(halves.clips("h36m_17", index), wanted, rtol=0, atol=2e-3)
    sent = pickle.dumps(streamed)
    assert len(sent) < 50_000  # the name of the file, not its clips
    assert torch.equal(pickle.loads(sent).clips("h36m_17", index), wanted)


def test_a_source_may_be_named(folders):
    made = SkeletonDataset(folders / "ready", "val", [SOURCE], derive={"jta_22": "coco_19"})
    assert made.derived == {"jta_22": "coco_19"} and list(made.layouts) == [SOURCE, "jta_22"]
    with pytest.raises(InputError, match="has no layout 'smpl_24'"):
        SkeletonDataset(folders / "ready", "val", derive={"jta_22": "smpl_24"})


@pytest.mark.parametrize(
    ("derive", "message"),
    [
        (["smplx_42"], f"smplx_42 cannot be derived from {SOURCE}: no rule for jaw"),
        ([SOURCE], "asked for twice"),
        (["nope"], "nope"),
    ],
)
def test_what_cannot_be_derived_is_refused(folders, derive, message):
    with pytest.raises(InputError, match=message):
        SkeletonDataset(folders / "plain", "train", derive=derive)


def test_absent_bodies_stay_absent(tmp_path):
    prepare_arrays(tmp_path / "data", **tiny_clips(), frames=FRAMES)
    made = SkeletonDataset(tmp_path / "data", "train", derive=["lsp_14"])
    assert not made.bodies.all() and not made.views["lsp_14"][~made.bodies].any()
    moved = made.views["lsp_14"][made.bodies].any(dim=(1, 3))  # (bodies, V)
    assert (moved.sum(dim=1) == 13).all()  # all but the centre


# Training and evaluation


def test_a_run_trains_on_what_it_derives_and_is_evaluated_on_it(tmp_path):
    prepare_arrays(tmp_path / "data", **tiny_clips(), frames=FRAMES)
    options = dict(layouts=["kinectv1_20"], derive=["jta_22"], steps=4, lr=0.01)
    folder = pretrain(tiny_recipe(tmp_path / "data", tmp_path / "run", **options))
    assert len(column(folder)) == 4
    run = open_run(folder)
    assert run.layouts == ["kinectv1_20", "jta_22"] and run.derived == {"jta_22": "kinectv1_20"}
    assert data_layouts(run) == ["kinectv1_20", "jta_22", "h36m_17"]
    result = evaluate_knn(run, "jta_22")
    assert result["seen_in_pretraining"] and result["layout"] == "jta_22"
    members = evaluate_ensemble([run], ["kinectv1_20", "jta_22"], epochs=1)["members"]
    assert [m["layout"] for m in members] == ["kinectv1_20", "jta_22"]


def test_a_run_on_derived_clips_resumes_bit_for_bit(tmp_path):
    prepare_arrays(tmp_path / "data", **tiny_clips(("kinectv1_20",)), frames=FRAMES)
    options = dict(layouts=None, derive=["h36m_17"], steps=8)
    whole = pretrain(tiny_recipe(tmp_path / "data", tmp_path / "whole", **options))
    out = tmp_path / "halves"
    pretrain(tiny_recipe(tmp_path / "data", out, **options | {"steps": 4}))
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    state["recipe"]["steps"] = 8
    torch.save(state, out / "checkpoint.pt")
    pretrain(tiny_recipe(tmp_path / "data", out, **options), resume=True)
    assert column(out) == column(whole)


def test_the_key_is_a_list_of_layouts():
    recipe = make_recipe({"data": "d", "out": "o", "derive": "h36m_17, coco_19"})
    assert recipe.derive == ["h36m_17", "coco_19"]
    assert make_recipe({"data": "d", "out": "o"}).derive is None
