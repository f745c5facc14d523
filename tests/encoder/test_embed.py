"""`msclr.load(...).embed(...)`: clips as they come, prepared as the training data were."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import msclr
from msclr import layouts
from msclr.data import prepare_arrays
from msclr.data.dataset import SkeletonDataset
from msclr.errors import InputError
from msclr.evaluation import extract_features, open_run
from msclr.evaluation.protocols import features_of
from msclr.layouts import Layout
from msclr.training import pretrain
from tests.tiny import FRAMES, LAYOUTS, TRAIN, tiny_clips, tiny_recipe

KNOWN = LAYOUTS[0]


@pytest.fixture(scope="session")
def clips(arguments):
    """The raw clips that the data of the runs were prepared from, the training clips first."""
    return arguments["views"]


def evaluated(folder, data, layout):
    """The features that evaluation uses, of both splits."""
    f = features_of(open_run(folder), layout, data)
    return torch.cat([f.train, f.val])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_raw_clip_has_the_features_that_evaluation_uses_to_the_last_bit(
    encoder, folders, data, clips, layout
):
    wanted = evaluated(folders["joint"], data, layout)
    together = encoder.embed(clips[layout], layout)
    assert together.dtype == torch.float32 and together.shape == wanted.shape
    assert together.equal(wanted)
    for number in (0, 3, TRAIN):  # of one body, of two, of the other split
        assert encoder.embed(clips[layout][number], layout).equal(wanted[number : number + 1])
    assert wanted.std(dim=0).min() > 0


@pytest.mark.parametrize("stream", ["motion", "bone"])
def test_other_streams_too(folders, data, clips, stream):
    wanted = evaluated(folders[stream], data, KNOWN)
    assert msclr.load(folders[stream]).embed(clips[KNOWN][:9], KNOWN).equal(wanted[:9])


@pytest.mark.parametrize(
    "options",
    [
        {"frame": "camera"},
        {"frame": "ntu"},
        {"frame": "none"},
        {"frame": "body", "size": "none"},
        {"bodies": 1},
    ],
    ids=str,
)
def test_every_preparation_is_taken_up_from_the_checkpoint(options, tmp_path):
    given = tiny_clips([KNOWN])
    prepare_arrays(tmp_path / "data", **given | options, frames=FRAMES + 5)
    recipe = tiny_recipe(tmp_path / "data", tmp_path / "run", layouts=[KNOWN], steps=6, lr=0.01)
    folder, clips = pretrain(recipe), given["views"][KNOWN][:TRAIN]
    dataset = SkeletonDataset(tmp_path / "data", "train", [KNOWN])
    encoder = msclr.load(folder)
    x, bodies = encoder.preparation.prepare(clips, layouts.get(KNOWN))
    assert x.equal(dataset.views[KNOWN]) and bodies.equal(dataset.bodies)
    wanted = extract_features(open_run(folder).encoder, dataset, KNOWN, "joint")
    assert encoder.embed(clips, KNOWN).equal(wanted) and wanted.std(dim=0).max() > 0


def test_a_clip_of_another_length_and_with_gaps_is_prepared_too(encoder, clips):
    clip = clips[KNOWN][1]  # (2, T, V, 3)
    longer = np.repeat(clip, 3, axis=1)
    holes = longer.copy()
    holes[0, 2, 4] = np.nan
    holes[1, 5:7, 0, 1] = np.inf
    whole, mended = encoder.embed([longer, holes], KNOWN)
    assert mended.isfinite().all() and not mended.equal(whole)
    assert (mended - whole).norm() < 0.5 * whole.norm()
    assert encoder.embed(longer.astype(np.float32), KNOWN).shape == (1, encoder.dim)


def test_clips_come_in_every_usual_form(encoder, clips):
    clip = clips[KNOWN][0][0]  # (T, V, 3)
    wanted = encoder.embed(clip, KNOWN)
    assert wanted.shape == (1, encoder.dim)
    for form in ([clip], (clip[None],), torch.tensor(clip), np.stack([clip[None]]), clip[None]):
        assert encoder.embed(form, KNOWN).equal(wanted)
    assert encoder.embed([], KNOWN).shape == (0, encoder.dim)
    assert encoder.embed(clip, layouts.get(KNOWN)).equal(wanted)


def test_which_clips_come_along_changes_nothing(encoder, clips):
    some = clips[KNOWN][:7]
    assert encoder.embed(some, KNOWN)[4].equal(encoder.embed(some[4], KNOWN)[0])


@pytest.mark.parametrize(
    ("given", "layout", "message"),
    [
        (np.zeros((8, 17, 3)), "h37m_17", "unknown layout 'h37m_17'; did you mean 'h36m_17'"),
        (np.ones((8, 16, 3)), "h36m_17", "the clip has 16 joints, layout h36m_17 has 17"),
        ([np.ones((8, 16, 3))], "h36m_17", "clip 0 has 16 joints"),
        (np.ones((0, 17, 3)), "h36m_17", "the clip has no frame"),
        ([np.ones((8, 17, 3)), np.ones((2, 0, 17, 3))], "h36m_17", "clip 1 has no frame"),
        (np.full((8, 17, 3), np.nan), "h36m_17", "clip 0 has no joint: all are NaN or 0"),
        (np.zeros((8, 17, 3)), "h36m_17", "clip 0 has no joint"),
        (np.ones((8, 17, 2)), "h36m_17", "joints of 2 coordinates .* takes x, y and z"),
        (np.ones((17, 3)), "h36m_17", r"shape \(17, 3\); wanted \(T, V, 3\)"),
        (np.full((8, 17, 3), "x"), "h36m_17", "holds <U1"),
        ([[[0, 1], [2]]], "h36m_17", "is no array"),
        (np.ones((8, 17, 3)), None, "which layout are the clips of"),
        (np.ones((8, 17, 3)), "none.toml", "none.toml: cannot read the layout file"),
    ],
)
def test_bad_clips_end_in_one_line(encoder, given, layout, message):
    with pytest.raises(InputError, match=message) as caught:
        encoder.embed(given, layout)
    assert "\n" not in str(caught.value)


def test_millimetres_are_noticed(tmp_path):
    given = tiny_clips([KNOWN])
    prepare_arrays(tmp_path / "data", **given, frames=FRAMES)
    folder = pretrain(tiny_recipe(tmp_path / "data", tmp_path / "run", layouts=[KNOWN], steps=2))
    with pytest.raises(InputError, match="another unit; give metres"):
        msclr.load(folder).embed([1000 * clip for clip in given["views"][KNOWN]], KNOWN)


def test_an_encoder_of_one_layout_needs_no_name(tmp_path):
    given = tiny_clips([KNOWN])
    prepare_arrays(tmp_path / "data", **given, frames=FRAMES)
    folder = pretrain(tiny_recipe(tmp_path / "data", tmp_path / "run", layouts=[KNOWN], steps=2))
    encoder = msclr.load(folder / "checkpoint.pt")
    clip = given["views"][KNOWN][0]
    assert encoder.embed(clip).equal(encoder.embed(clip, KNOWN))


def test_other_joints_under_a_known_name_are_refused(encoder):
    short = Layout(KNOWN, ["a", "b"], [["b", "a"]], "a", flip=[])
    with pytest.raises(InputError, match="of 2 joints is not the one of 17 joints"):
        encoder.embed(np.ones((8, 2, 3)), short)


@pytest.mark.parametrize("options", [{"route": "fly"}, {"stream": "joint"}, {"layouts": [KNOWN]}])
def test_what_load_cannot_do_is_one_line(folders, options):
    with pytest.raises(InputError, match="route is 'fly'|has its own"):
        msclr.load(folders["joint"], **options)


def test_nothing_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no run at"):
        msclr.load(tmp_path / "absent.pt")


def test_checkpoints_of_older_versions_take_what_their_data_say(folders, clips, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    state = torch.load(folders["joint"] / "checkpoint.pt", weights_only=True)
    wanted = msclr.load(folders["joint"]).embed(clips[KNOWN][:3], KNOWN)
    for key in ("frames", "bodies", "frame", "size_by"):
        del state[key]
    torch.save(state, folder / "checkpoint.pt")
    assert msclr.load(folder).embed(clips[KNOWN][:3], KNOWN).equal(wanted)
    state["data_checksums"] = {"train/labels.npy": "other"}
    torch.save(state, folder / "checkpoint.pt")
    with pytest.raises(InputError, match="does not say how its data were prepared"):
        msclr.load(folder)
