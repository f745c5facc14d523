"""Exported files against the encoder: ONNX by onnxruntime, .pt2 by torch.export."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

import msclr
from msclr import layouts as layout_registry
from msclr.cli import main
from msclr.data import prepare_arrays
from msclr.encoder import Encoder
from msclr.encoder.preparation import Preparation
from msclr.errors import InputError
from msclr.evaluation import evaluate_knn, open_run
from msclr.export import ExportModel, Head, export, head_of
from msclr.export.frames import BodyFrames
from msclr.export.model import routes_of
from msclr.export.write import _write
from msclr.nn import STGCN
from msclr.training import pretrain
from tests.nn.lookalikes import trained
from tests.tiny import LAYOUTS, tiny_recipe

TOLERANCE = 1e-5  # of the largest feature
EVALUATION = f"linear-{LAYOUTS[1]}-joint-pretrained-epochs5"
SHAPES = [(1, 1, 5), (4, 2, 1), (3, 3, 30)]  # clips, bodies, frames


def packages():
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)


@pytest.fixture(scope="session")
def head(run):
    return head_of(open_run(run), EVALUATION)


class Written(NamedTuple):
    path: Path
    description: dict


@pytest.fixture(scope="session")
def files(run, tmp_path_factory):
    """What the command writes: two layouts, with a classifier for one of them, in both kinds."""
    packages()
    folder = tmp_path_factory.mktemp("files")
    paths = folder / "m.onnx", folder / "m.pt2"
    given = ["--onnx", str(paths[0]), "--pt2", str(paths[1]), "--classifier", EVALUATION]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["export", str(run), *given]) == 0
    assert said.getvalue().count("differ from the encoder's by") == 2
    extra = {"msclr.json": ""}
    torch.export.load(paths[1], extra_files=extra)
    return [Written(path, json.loads(extra["msclr.json"])) for path in paths]


def stacked(clips, count=6):
    """Clips (N, 2, T, V, 3) float32 of those of one body and of two."""
    out = np.zeros((count, 2, *clips[0].shape[1:]), np.float32)
    for number, clip in enumerate(clips[:count]):
        out[number, : len(clip)] = clip
    return out


def runner(done):
    """A function of clips by layout that gives outputs by name."""
    names = list(done.description["inputs"])
    if done.path.suffix == ".pt2":
        module = torch.export.load(done.path).module()
        outputs = list(done.description["outputs"])
        return lambda given: dict(
            zip(outputs, module(*(torch.from_numpy(given[x]) for x in names)), strict=True)
        )
    import onnxruntime

    session = onnxruntime.InferenceSession(str(done.path), providers=["CPUExecutionProvider"])
    outputs = [x.name for x in session.get_outputs()]
    return lambda given: {
        name: torch.from_numpy(x) for name, x in zip(outputs, session.run(None, given), strict=True)
    }


def assert_close(found, wanted, varies=True):
    assert found.shape == wanted.shape and found.dtype == torch.float32
    if varies:
        assert wanted.std(dim=0).max() > 1e-3 * wanted.abs().max()
    assert (found - wanted).abs().max() < TOLERANCE * wanted.abs().max()


def test_two_layouts_have_the_features_of_embed_in_both_kinds_of_files(files, encoder, clips, head):
    given = {name: stacked(of_layout) for name, of_layout in clips.items()}
    for done in files:
        out = runner(done)(given)
        assert list(out) == list(done.description["outputs"])
        for name in LAYOUTS:
            assert_close(out[f"{name}_features"], encoder.embed(given[name], name))
        features = encoder.embed(given[LAYOUTS[1]], LAYOUTS[1])
        logits = features @ head.weight.T + head.bias
        assert_close(out[f"{LAYOUTS[1]}_logits"], logits, varies=False)


def test_clips_bodies_and_frames_may_be_of_any_number_each_input_for_itself(files, encoder):
    rng = np.random.default_rng(0)
    for done in files:
        run = runner(done)
        for shape, other in zip(SHAPES, [*SHAPES[1:], (0, 1, 4)], strict=True):
            given = {
                name: rng.normal(0, 0.5, (*size, encoder.layouts[name].num_joints, 3))
                for name, size in zip(LAYOUTS, (shape, other), strict=True)
            }
            given = {name: x.astype(np.float32) for name, x in given.items()}
            out = run(given)
            for name, x in given.items():
                features = out[f"{name}_features"]
                assert len(features) == len(x)
                if len(x):
                    assert_close(features, encoder.embed(x, name), varies=False)


def test_a_clip_that_cannot_be_used_has_nan_and_the_others_keep_theirs(files, encoder, clips):
    given = {name: stacked(of_layout) for name, of_layout in clips.items()}
    wanted = encoder.embed(given[LAYOUTS[0]][[0, 2]], LAYOUTS[0])
    given[LAYOUTS[0]][1] = np.nan
    for done in files:
        out = runner(done)(given)[f"{LAYOUTS[0]}_features"]
        assert out[1].isnan().all()
        assert_close(out[[0, 2]], wanted)
        metres = runner(done)({**given, LAYOUTS[0]: given[LAYOUTS[0]] * 1000})
        assert metres[f"{LAYOUTS[0]}_features"].isnan().all()


def test_a_file_holds_standard_operators_and_says_what_it_takes(files, encoder):
    import onnx

    model = onnx.load(files[0].path)
    assert {node.domain for node in model.graph.node} == {""} and not model.functions
    about = {entry.key: entry.value for entry in model.metadata_props}
    described = json.loads(about["msclr"])
    assert described == files[1].description
    joints = described["inputs"][LAYOUTS[0]]["joints"]
    assert joints == list(encoder.layouts[LAYOUTS[0]].joints)
    assert described["outputs"][f"{LAYOUTS[1]}_logits"]["classes"] == ["stand", "hug"]
    program = torch.export.load(files[1].path)
    targets = {str(n.target) for n in program.graph.nodes if n.op == "call_function"}
    assert "aten.conv2d.default" in targets and not [t for t in targets if "msclr" in t]


def in_graph(encoder, names=None):
    return ExportModel(encoder, routes_of(encoder, names), {}).eval()


def made_encoder(how, stream="joint", bodies="present", names=LAYOUTS):
    torch.manual_seed(0)
    model = trained(STGCN(list(names), hidden_channels=4, hidden_dim=12, bodies=bodies)).float()
    for name in names:
        model.input_norm[name].weight.data *= 20  # so that clips differ
    return Encoder(model, how, stream)


@pytest.mark.parametrize("bodies", ["present", "all"])
@pytest.mark.parametrize("stream", ["joint", "motion", "bone"])
def test_streams_and_what_counts_as_a_body(stream, bodies, clips):
    encoder = made_encoder(Preparation(8, 2, "body", "torso"), stream, bodies)
    x = stacked(clips[LAYOUTS[0]])
    (found,) = in_graph(encoder, LAYOUTS[:1])(torch.from_numpy(x))
    assert_close(found, encoder.embed(x, LAYOUTS[0]))
    (found,) = in_graph(encoder, LAYOUTS[:1])(torch.from_numpy(x[::2, :1]))
    assert_close(found, encoder.embed(x[::2, :1], LAYOUTS[0]))


@pytest.mark.parametrize("frame", ["body", "camera"])
def test_a_layout_that_the_encoder_does_not_know_is_derived(frame):
    encoder = made_encoder(Preparation(8, 2, frame), names=["h36m_17"])
    rng = np.random.default_rng(0)
    x = rng.normal(0, 0.5, (4, 2, 9, 25, 3)).astype(np.float32)
    x[1, 1], x[2, :, :, 3] = 0, np.nan
    (found,) = in_graph(encoder, ["kinectv2_25"])(torch.from_numpy(x))
    assert_close(found, encoder.embed(x, "kinectv2_25"))


def test_clips_of_two_dimensions(clips):
    encoder = made_encoder(Preparation(8, 2, coordinates="xy_score"), "motion")
    x = stacked(clips[LAYOUTS[0]])
    x[..., 2] = np.abs(x[..., 2])
    (found,) = in_graph(encoder, LAYOUTS[:1])(torch.from_numpy(x))
    assert_close(found, encoder.embed(x, LAYOUTS[0]))


def test_real_clips_of_two_layouts_from_metres_to_features(shared_data, tmp_path):
    packages()
    with np.load(shared_data / "ui_prmd" / "ui_prmd.npz") as archive:
        kept, cut = np.arange(0, 1979, 60), archive["offset"]
        names = {"uiprmd_kinect_22": "kinect_22", "uiprmd_vicon_39": "vicon_39"}
        arrays = {name: archive[key] for name, key in names.items()}
        views = {
            name: [array[cut[i] : cut[i + 1]].astype(np.float32) / 1000 for i in kept]
            for name, array in arrays.items()
        }
        labels = archive["movement"][kept] % 2
    split = np.where(np.arange(len(kept)) % 3, "train", "val")
    prepare_arrays(tmp_path / "data", views=views, labels=labels, split=split, frame="camera")
    recipe = tiny_recipe(tmp_path / "data", tmp_path / "run", layouts=list(views), steps=3, lr=0.01)
    encoder = msclr.load(pretrain(recipe))
    (done,) = export(encoder, onnx=tmp_path / "m.onnx")
    run = runner(done)
    for number in range(5):
        clips = {name: of_layout[number] for name, of_layout in views.items()}
        out = run({name: clip[None, None] for name, clip in clips.items()})
        for name, clip in clips.items():
            assert_close(out[f"{name}_features"], encoder.embed(clip, name), varies=False)


def test_the_frame_of_a_body_is_the_same_in_onnx(tmp_path):
    """The largest part of the graph of an encoder whose clips are put into it."""
    packages()
    import onnxruntime

    layout = layout_registry.get("kinectv2_25")
    rng = np.random.default_rng(0)
    xyz = torch.from_numpy(rng.normal(0, 0.5, (4, 30, 25, 3)))
    seen = torch.from_numpy(rng.random((4, 30, 25)) < 0.8)
    xyz = torch.where(seen.unsqueeze(3), xyz, 0.0)
    model, dim = BodyFrames(layout).eval(), torch.export.Dim
    axes = {0: dim("bodies"), 1: dim("frames")}
    program = torch.export.export(model, (xyz, seen), dynamic_shapes=(axes, axes))
    made = torch.onnx.export(program, input_names=["xyz", "seen"], dynamo=True, verbose=False)
    made.save(str(tmp_path / "m.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    for count, frames in ((4, 30), (1, 1), (2, 25)):
        given = {"xyz": xyz[:count, :frames].numpy(), "seen": seen[:count, :frames].numpy()}
        found = session.run(None, given)
        wanted = model(*map(torch.from_numpy, given.values()))
        known = wanted.found.numpy()
        assert known.any() or frames == 1
        for a, b in zip(found, wanted, strict=True):
            assert np.allclose(a[known], b.numpy()[known], rtol=0, atol=1e-12)
        assert (found[3] == known).all()


def refused(capsys, *given):
    assert main(["export", *map(str, given)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_what_cannot_be_exported_is_one_line(run, tmp_path, capsys, monkeypatch):
    there = tmp_path / "there.pt2"
    there.touch()
    new = tmp_path / "new.pt2"
    knn = evaluate_knn(open_run(run), LAYOUTS[0])
    assert knn["protocol"] == "knn"
    for given, wanted in (
        ([], "--onnx FILE or --pt2 FILE"),
        (["--pt2", there], "exists"),
        (["--pt2", there / "m.pt2"], "is no folder; choose another file"),
        (["--pt2", tmp_path / "m.onnx"], "ends in .pt2"),
        (["--pt2", new, "--layout", "no_such"], "no_such"),
        (["--pt2", new, "--layout", f"{LAYOUTS[0]},{LAYOUTS[0]}"], "asked for twice"),
        (["--pt2", new, "--classifier", "linear-none"], "there are linear-"),
        (["--pt2", new, "--classifier", f"knn-{LAYOUTS[0]}-joint-pretrained"], "protocol knn"),
        (
            [
                "--pt2", new, "--layout", LAYOUTS[1],
                "--classifier", f"linear-{LAYOUTS[0]}-joint-pretrained-epochs5",
            ],
            "is not exported",
        ),
    ):  # fmt: skip
        assert wanted in refused(capsys, run, *given)
    monkeypatch.setattr("msclr.export.write.find_spec", lambda name: None)
    line = refused(capsys, run, "--onnx", tmp_path / "m.onnx")
    assert "pip install 'msclr[export]'" in line
    assert not new.exists() and list(tmp_path.iterdir()) == [there]


def test_a_route_fitted_on_clips_cannot_be_written(encoder, tmp_path):
    attached = Encoder(encoder.model, encoder.preparation, route="attach")
    with pytest.raises(InputError, match="use route derive"):
        export(attached, pt2=tmp_path / "m.pt2", layouts=["kinectv2_25"])


def test_a_file_that_differs_from_the_encoder_is_not_kept(tmp_path):
    def writer(path, *_):
        path.touch()
        return lambda clips: clips

    description = {"inputs": {"a": {}}, "outputs": {"a_features": {}}}
    made = [torch.ones(3, 8)]
    close = [torch.ones(3, 8) + 1e-6]
    assert _write(tmp_path / "a.pt2", writer, None, description, made, close).difference < 1e-5
    with pytest.raises(RuntimeError, match="not kept"):
        _write(tmp_path / "b.pt2", writer, None, description, made, [torch.full((3, 8), 1.01)])
    assert list(tmp_path.iterdir()) == [tmp_path / "a.pt2"]


def test_a_changed_run_does_not_get_the_classifier_of_an_older_step(run, tmp_path):
    path = run / "evaluation" / f"linear-{LAYOUTS[0]}-joint-pretrained-epochs5.json"
    result = json.loads(path.read_text())
    for change, wanted in (
        ({"step": 3}, "is at step 6"),
        ({"top1": -50.0}, "have changed since"),
        ({"mirror": True}, "give one without --mirror"),
    ):
        (tmp_path / "other.json").write_text(json.dumps(result | change))
        with pytest.raises(InputError, match=wanted):
            head_of(open_run(run), tmp_path / "other.json")


def test_heads_are_of_exported_layouts(encoder, tmp_path):
    head = Head("coco_17", torch.zeros(2, 8), torch.zeros(2), ["a", "b"], "x.json")
    with pytest.raises(InputError, match="not exported"):
        export(encoder, pt2=tmp_path / "m.pt2", heads=[head])
