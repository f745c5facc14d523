"""Data of another kind than a run was trained on are refused, whatever figure they would give."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from msclr.data import prepare_arrays
from msclr.data.store import Store, open_store
from msclr.errors import InputError
from msclr.evaluation import evaluate_ensemble, evaluate_knn, evaluate_linear, open_run
from msclr.evaluation.compare import require_same_kind
from msclr.evaluation.run import Run
from msclr.layouts import Layout
from tests.tiny import LAYOUTS, UNSEEN, tiny_clips

JOINTS = ["hip", "head", "lhand", "rhand"]
BONES = [["head", "hip"], ["lhand", "head"], ["rhand", "head"]]


def stick(name="stick", joints=JOINTS, bones=BONES, center="hip", **more):
    return Layout(name, joints, bones, center, **more)


def store(layout, units="metre", coordinates="xyz", size=1.7, frame="camera", size_by="none"):
    meta = {"units": units, "size": {layout.name: size}, "splits": {}}
    if units is None:
        del meta["units"]
    return Store(
        Path("other"), {layout.name: layout}, ["a"], 8, 1, meta, coordinates, frame, size_by
    )


def trained(layout=None, coordinates="xyz", units="metre", size=None, **more):
    layout = layout or stick()
    return Run(
        Path("run"),
        recipe=None,
        encoder=SimpleNamespace(layouts={layout.name: layout}),
        layouts=[layout.name],
        step=1,
        device=torch.device("cpu"),
        random=False,
        coordinates=coordinates,
        units=units,
        size={layout.name: 1.7} if size is None else size,
        **more,
    )


LOOP = [*BONES, ["rhand", "lhand"]]
LOOP_IN_ANOTHER_ORDER = [BONES[0], BONES[1], ["rhand", "lhand"], BONES[2]]


@pytest.mark.parametrize(
    ("mine", "theirs", "message"),
    [
        (
            stick(joints=["hip", "head", "rhand", "lhand"]),
            stick(),
            "other: layout stick has 'rhand' as joint 2 .from 0., the encoder has 'lhand' there",
        ),
        (stick(joints=JOINTS[:3], bones=BONES[:2]), stick(), "has 3 joints, the encoder's has 4"),
        (stick(center="head", bones=[["hip", "head"], *BONES[1:]]), stick(), "the centre 'head'"),
        (stick(bones=BONES[:2] + [["rhand", "hip"]]), stick(), "has other bones"),
        (stick(bones=LOOP, outside_graph=[LOOP[-1]]), stick(bones=LOOP), "'rhand' to 'lhand'"),
        (stick(bones=LOOP_IN_ANOTHER_ORDER), stick(bones=LOOP), "bones in another order"),
    ],
    ids=["joints", "count", "centre", "bones", "outside_graph", "parents"],
)
def test_a_layout_of_the_same_name_must_be_the_same(mine, theirs, message):
    with pytest.raises(InputError, match=message) as error:
        require_same_kind(trained(theirs), store(mine), "stick")
    assert "\n" not in str(error.value)


def test_what_the_encoder_does_not_look_at_may_differ():
    mirrored = stick(flip=[], aliases=["matchstick"], bones=[BONES[2], *BONES[:2]])
    require_same_kind(trained(), store(mirrored), "stick")


@pytest.mark.parametrize("layout", [stick(), stick("unseen", JOINTS[:2], BONES[:1])])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"coordinates": "xy_score"}, "holds xy_score clips, run was trained on xyz clips"),
        ({"units": "inch"}, "the unit 'inch', run was trained in 'metre'"),
        ({"size": 1700.0}, "measure 1.7e.03, those that run was trained on 1.7: .*--scale 0.001$"),
        ({"size": 170.0}, "--scale 0.01$"),
        ({"size": 0.0017}, "--scale 1000$"),
    ],
)
def test_other_coordinates_and_units_are_refused_under_any_layout(layout, data, message):
    with pytest.raises(InputError, match=message):
        require_same_kind(trained(), store(layout, **data), layout.name)


def test_planar_clips_of_another_size_want_the_size_of_their_images():
    run = trained(coordinates="xy_score", units="image")
    with pytest.raises(InputError, match="with the width and height of their images$"):
        require_same_kind(run, store(stick(), "image", "xy_score", size=900.0), "stick")


@pytest.mark.parametrize("size", [0.18, 1.7, 16.0, None])
def test_bodies_may_differ_by_a_factor_of_ten(size):
    require_same_kind(trained(), store(stick(), size=size), "stick")


def test_the_nearest_size_counts_for_a_layout_that_the_run_has_not_seen():
    run = trained(size={"stick": 1.7, "hand": 0.2})
    require_same_kind(run, store(stick("unseen"), size=0.1), "unseen")
    with pytest.raises(InputError, match="trained on 1.7: .*--scale 1000"):
        require_same_kind(run, store(stick(), size=0.0017), "stick")  # its own, where it is known


@pytest.mark.parametrize(
    ("run", "data"),
    [
        ({"coordinates": None}, {"coordinates": "xy_score"}),
        ({"units": None}, {"units": "inch"}),
        ({}, {"units": None}),
        ({"size": {}}, {"size": 1700.0}),
        ({"size": {"stick": None}}, {"size": 1700.0}),
    ],
)
def test_what_an_older_version_did_not_write_is_not_compared(run, data):
    require_same_kind(trained(**run), store(stick(), **data), "stick")


@pytest.mark.parametrize("layout", [stick(), stick("unseen", JOINTS[:2], BONES[:1])])
@pytest.mark.parametrize(
    ("run", "data", "mend"),
    [
        ({}, {"frame": "body"}, "--frame camera --size none"),
        ({"frame": "body"}, {}, "--frame body --size none"),
        ({"frame": "body", "size_by": "torso"}, {"frame": "body"}, "--frame body --size torso"),
        ({"frame": "ntu"}, {"frame": "camera"}, "--frame ntu"),
        ({"frame_told": False}, {"frame": "body"}, "--frame camera"),
        ({"frame_told": False}, {"size_by": "torso"}, "--size none"),
    ],
)
def test_data_in_another_frame_are_refused_with_the_mend(layout, run, data, mend):
    with pytest.raises(InputError, match=f"is in the frame .* was trained in .*{mend}") as error:
        require_same_kind(trained(**run), store(layout, **data), layout.name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("frame", ["camera", "ntu"])
def test_runs_from_before_frames_were_named_fit_both_that_there_were(frame):
    require_same_kind(trained(frame_told=False), store(stick(), frame=frame), "stick")
    require_same_kind(trained(frame=frame), store(stick(), frame=frame), "stick")


def test_an_older_checkpoint_differs_from_one_that_names_its_frame(folders, tmp_path):
    state = torch.load(folders["joint"] / "checkpoint.pt", weights_only=True)
    assert open_run(folders["joint"]).frame_told
    del state["frame"], state["size_by"]
    torch.save(state, tmp_path / "checkpoint.pt")
    run = open_run(tmp_path)
    assert (run.frame, run.frame_told, run.size_by) == ("camera", False, "none")


@pytest.fixture(scope="module")
def millimetres(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mm") / "data"
    prepare_arrays(folder, **tiny_clips((LAYOUTS[0], UNSEEN)), frames=8, scale=1000.0)
    return folder


@pytest.fixture
def run(folders, tmp_path):
    """A run whose checkpoint says what it was trained on."""
    state = torch.load(folders["joint"] / "checkpoint.pt", weights_only=True)
    state |= {"coordinates": "xyz", "units": "metre", "size": dict.fromkeys(LAYOUTS, 3.5)}
    torch.save(state, tmp_path / "checkpoint.pt")
    return open_run(tmp_path)


def test_a_checkpoint_says_what_its_run_was_trained_on(folders, data, tmp_path):
    run, mine = open_run(folders["joint"]), open_store(data)
    assert (run.coordinates, run.units) == ("xyz", mine.meta["units"])
    assert run.size == mine.size
    assert run.checksums == mine.meta["checksums"]

    state = torch.load(folders["joint"] / "checkpoint.pt", weights_only=True)
    for key in ("coordinates", "units", "size"):  # as an older version wrote it
        state.pop(key)
    torch.save(state, tmp_path / "checkpoint.pt")
    run = open_run(tmp_path)
    assert (run.coordinates, run.units, run.size) == (None, None, {})


@pytest.mark.parametrize("layout", [LAYOUTS[0], UNSEEN])
@pytest.mark.parametrize(
    "evaluate",
    [evaluate_knn, evaluate_linear, lambda run, layout, x: evaluate_ensemble([run], [layout], x)],
)
def test_every_protocol_refuses_millimetres_and_keeps_nothing(run, millimetres, layout, evaluate):
    with pytest.raises(InputError, match=r"--scale 0\.001"):
        evaluate(run, layout, millimetres)
    assert not (run.folder / "evaluation").exists()


def test_every_protocol_takes_data_of_the_same_kind(run, data):
    assert evaluate_knn(run, LAYOUTS[0], data)["top1"] is not None


def test_joints_in_another_order_are_refused_by_the_checkpoint(folders, data, tmp_path):
    state = torch.load(folders["joint"] / "checkpoint.pt", weights_only=True)
    joints = state["layouts"][LAYOUTS[0]]["joints"]
    joints[3], joints[5] = joints[5], joints[3]
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match=f"layout {LAYOUTS[0]} has .* as joint 3 .from 0."):
        evaluate_knn(open_run(tmp_path), LAYOUTS[0])
