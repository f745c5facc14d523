"""Exports: as others' code reads them; ours -> theirs -> ours is the identity, byte for byte."""

from __future__ import annotations

import json
import pickle
import pickletools
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msclr.data import export
from msclr.data.export import export_aimclr, export_pyskl
from msclr.data.prepare.aimclr import prepare_aimclr
from msclr.data.prepare.arrays import prepare_arrays
from msclr.data.prepare.pyskl import prepare_pyskl
from msclr.data.store import StoreWriter, open_store
from msclr.errors import InputError
from msclr.layouts import Layout, register
from tests.tiny import same_files

HIP = Layout("export_hip_3", ["hip", "neck", "head"], [["neck", "hip"], ["head", "neck"]], "hip")
TIP = Layout("export_tip_2", ["mid", "top"], [["top", "mid"]], "mid")
LAYOUTS = {layout.name: layout for layout in (HIP, TIP)}
SPLITS = ("train", "val")


def write(out, layouts=(HIP, TIP), clips: int = 5, frames: int = 4, bodies: int = 3, **options):
    """Clips of 1 to `bodies` people; every third goes to val, the first has a joint never seen."""
    rng = np.random.default_rng(0)
    described = {"name": "set", "classes": ["sit", "bow"], "source": "a test"}
    with StoreWriter(
        out, layouts=layouts, frames=frames, bodies=bodies, **described | options
    ) as writer:
        for i in range(clips):
            here = np.arange(bodies) <= i % bodies
            views = {}
            for layout in layouts:
                xyz = rng.normal(size=(bodies, frames, layout.num_joints, 3)).astype("f4")
                xyz[:, :, 0], xyz[~here] = 0, 0  # centred
                if i == 0 and layout is HIP:
                    xyz[:, :, 1] = 0
                views[layout.name] = xyz
            writer.add("val" if i % 3 == 2 else "train", views, here, i % 2, f"clip {i} é")
        writer.finish()
    return open_store(out)


@pytest.fixture
def store(tmp_path):
    return write(tmp_path / "set")


def test_the_aimclr_form_as_others_read_it(tmp_path, store):
    out = export_aimclr(store, tmp_path / "out", HIP.name)
    assert sorted(path.name for path in out.iterdir()) == [
        f"{split}_{what}" for split in SPLITS for what in ("label.pkl", "position.npy")
    ]
    for name in SPLITS:
        split = store.split(name)
        positions = np.load(out / f"{name}_position.npy", mmap_mode="r")
        assert positions.dtype == np.float32
        wanted = split.views[HIP.name].transpose(0, 4, 2, 3, 1)  # (N, 3, T, V, M)
        np.testing.assert_array_equal(positions, wanted, strict=True)
        content = (out / f"{name}_label.pkl").read_bytes()
        labels = pickle.loads(content)
        assert labels == (split.names, split.labels.tolist())
        assert [type(x) for x in (labels, *labels, labels[1][0])] == [tuple, list, list, int]
        assert content[:2] == b"\x80\x04"


def test_the_pyskl_form_as_others_read_it(tmp_path, store):
    content = pickle.loads(export_pyskl(store, tmp_path / "out.pkl", HIP.name).read_bytes())
    assert list(content) == ["split", "annotations"]
    assert content["split"] == {name: store.split(name).names for name in SPLITS}
    assert type(content["annotations"]) is list
    rows = [(store.split(s), i) for s in SPLITS for i in range(len(store.split(s)))]
    for annotation, (split, i) in zip(content["annotations"], rows, strict=True):
        assert set(annotation) == {"frame_dir", "label", "total_frames", "keypoint"}
        assert annotation["frame_dir"] == split.names[i]
        assert (annotation["label"], annotation["total_frames"]) == (split.labels[i], 4)
        assert [type(annotation[key]) for key in ("label", "total_frames")] == [int, int]
        keypoint = annotation["keypoint"]
        assert (type(keypoint), keypoint.dtype) == (np.ndarray, np.float32)
        assert keypoint.flags.writeable  # pyskl normalises in place
        assert len(keypoint) == split.bodies[i].sum()
        wanted = np.array(split.views[HIP.name][i][split.bodies[i]])
        np.testing.assert_array_equal(keypoint, wanted, strict=True)


def test_the_pyskl_form_names_what_every_numpy_knows(tmp_path, store):
    data = export_pyskl(store, tmp_path / "out.pkl", TIP.name).read_bytes()
    operations = list(pickletools.genops(data))
    names = {argument for code, argument, _ in operations if code.name == "GLOBAL"}
    assert names == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}
    assert "STACK_GLOBAL" not in {code.name for code, _, _ in operations}
    assert max(code.proto for code, _, _ in operations) == 4


def test_an_empty_split(tmp_path):
    store = write(tmp_path / "set", clips=2)  # none in val
    out = export_aimclr(store, tmp_path / "out", HIP.name)
    assert np.load(out / "val_position.npy").shape == (0, 3, 4, 3, 3)
    with pytest.raises(InputError, match="val_position.npy is empty"):
        prepare_aimclr(tmp_path / "again", {HIP: out})
    file = export_pyskl(store, tmp_path / "out.pkl", HIP.name)
    assert pickle.loads(file.read_bytes())["split"]["val"] == []


# There and back


def there_and_back(folder, store) -> None:
    options = {"frames": store.frames, "bodies": store.bodies}
    files = {}
    for layout in store.layouts.values():
        files[layout] = export_aimclr(store, folder / f"{layout.name}_aimclr", layout.name)
        alone = folder / f"{layout.name}_pyskl"
        file = export_pyskl(store, folder / f"{layout.name}.pkl", layout.name)
        prepare_pyskl(alone, file, layout=layout, **options)
        for split in SPLITS:
            for name in (f"{layout.name}.npy", "bodies.npy", "labels.npy", "names.json"):
                ours, theirs = store.path / split / name, alone / split / name
                assert ours.read_bytes() == theirs.read_bytes(), (split, name)
    prepare_aimclr(folder / "again", files, **options)
    same_files(store.path, folder / "again")


SHAPES = {
    "clips": st.integers(3, 8),
    "frames": st.integers(1, 9),
    "bodies": st.integers(1, 4),
    "seed": st.integers(0, 2**32 - 1),
}
PROPERTY = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@PROPERTY
@given(**SHAPES, lost=st.floats(0, 0.6), grid=st.sampled_from([0, 0.25]))
def test_round_trip_of_prepared_clips(tmp_path_factory, clips, frames, bodies, seed, lost, grid):
    """Raw clips with joints and bodies missing, in several layouts; on a grid, joints meet."""
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("trip")
    views = {layout: [] for layout in LAYOUTS.values()}
    for _ in range(clips):
        absent = rng.random(bodies) < 0.4
        absent[rng.integers(bodies)] = False
        for layout, view in views.items():
            xyz = rng.normal(size=(bodies, rng.integers(1, 9), layout.num_joints, 3))
            xyz = np.round(xyz / grid) * grid if grid else xyz
            xyz[rng.random(xyz.shape[:3]) < lost] = rng.choice([0, np.nan])
            xyz[:, :, -1] = [9, 8, 7]  # without a second joint a body is as good as absent
            xyz[:, 0, 0] = [1, 2, 3]
            xyz[absent] = 0
            view.append(xyz)
    prepare_arrays(
        folder / "set",
        views,
        rng.integers(0, 3, clips),
        ["train", "val", *rng.choice(SPLITS, clips - 2)],
        classes=["a", "b", "c"],
        frames=frames,
        bodies=bodies,
    )
    there_and_back(folder, open_store(folder / "set"))


@PROPERTY
@given(**SHAPES, zeros=st.floats(0, 0.9))
def test_round_trip_of_any_centred_clips(tmp_path_factory, clips, frames, bodies, seed, zeros):
    """Whatever wrote the data set: joints at 0 in some frames and in all, denormal numbers."""
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("trip")
    with StoreWriter(
        folder / "set",
        name="set",
        layouts=LAYOUTS.values(),
        classes=["0", "1"],
        frames=frames,
        bodies=bodies,
        source="a test",
    ) as writer:
        for i in range(clips):
            here = np.arange(bodies) < rng.integers(1, bodies + 1)
            present = {}
            for layout in LAYOUTS.values():
                xyz = rng.normal(size=(bodies, frames, layout.num_joints, 3))
                xyz *= 10.0 ** rng.integers(-45, 30)
                xyz[rng.random(xyz.shape[:3]) < zeros] = rng.choice([0.0, -0.0])
                xyz[:, :, 0] = 0  # the centre
                xyz[:, :, -1, rng.integers(3)] = 1  # of a body, something is seen in every frame
                xyz[:, :, -1, 2] += 2 * (i < 2)  # no score, in either split
                xyz[~here] = 0
                present[layout.name] = xyz
            split = SPLITS[i] if i < 2 else rng.choice(SPLITS)
            writer.add(str(split), present, here, i % 2, f"clip {i}")
        writer.finish()
    there_and_back(folder, open_store(folder / "set"))


def test_round_trip_in_two_dimensions(tmp_path):
    rng = np.random.default_rng(0)
    clips = rng.uniform(-1, 1, (6, 2, 5, 3, 3))
    clips[..., 2] = rng.uniform(0.1, 1, (6, 2, 5, 3))
    clips[1, 0, :, 2] = 0  # never seen
    clips[2, 1] = 0  # absent
    labels, split = [0, 1] * 3, ["train", "val"] * 3
    made = {"frames": 5, "bodies": 2}
    prepare_arrays(tmp_path / "set", {HIP: clips}, labels, split, coordinates="xy_score", **made)
    store = open_store(tmp_path / "set")
    file = export_pyskl(store, tmp_path / "out.pkl")
    first = pickle.loads(file.read_bytes())["annotations"][0]
    assert (first["img_shape"], first["original_shape"]) == ((1080, 1920), (1080, 1920))
    wanted = (clips[0, ..., :2] + 1) * [960, 540]
    np.testing.assert_allclose(first["keypoint"], wanted, rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(first["keypoint_score"], clips[0, ..., 2].astype("f4"))
    assert first["keypoint_score"].shape == (2, 5, 3)
    prepare_pyskl(tmp_path / "again", file, layout=HIP, **made)
    folder = export_aimclr(store, tmp_path / "folder")
    prepare_aimclr(tmp_path / "third", {HIP: folder}, coordinates="xy_score", **made)
    same_files(tmp_path / "set", tmp_path / "third")
    again = open_store(tmp_path / "again")
    assert again.coordinates == "xy_score"
    for name in SPLITS:
        ours, theirs = (x.split(name).views[HIP.name] for x in (store, again))
        np.testing.assert_array_equal(theirs[..., 2], ours[..., 2])
        np.testing.assert_allclose(theirs, ours, atol=2e-7)


# Memory, names, refusals


def test_clips_are_copied_a_few_at_a_time(tmp_path):
    store = write(tmp_path / "set", [TIP], clips=1000, frames=60)
    size = (store.path / "train" / f"{TIP.name}.npy").stat().st_size
    for form, kept in ((export_aimclr, 0.3), (export_pyskl, 0.3)):
        tracemalloc.start()
        form(store, tmp_path / form.__name__)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < kept * size, (form.__name__, peak, size)


@pytest.mark.parametrize("form", [export_aimclr, export_pyskl])
def test_the_layout_may_be_left_out_where_there_is_one(tmp_path, store, form):
    register(HIP)
    with pytest.raises(InputError, match="has the layouts export_hip_3, export_tip_2; choose one"):
        form(store, tmp_path / "out")
    with pytest.raises(InputError, match="has no layout 'smplx_42'; it has export_hip_3, export_t"):
        form(store, tmp_path / "out", "smplx_42")
    with pytest.raises(InputError, match="unknown layout 'hip'"):
        form(store, tmp_path / "out", "hip")
    assert form(store.path, tmp_path / "one", "EXPORT_hip_3") == tmp_path / "one"
    write(tmp_path / "alone", [TIP])
    form(str(tmp_path / "alone"), tmp_path / "two")


@pytest.mark.parametrize("form", [export_aimclr, export_pyskl])
def test_what_is_there_stays(tmp_path, store, form):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file exists; choose another name or remove it"):
        form(store, tmp_path / "file", HIP.name)
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(InputError, match="nowhere is not a folder; make it first"):
        form(store, tmp_path / "nowhere" / "out", HIP.name)
    with pytest.raises(InputError, match="is not a folder; give the folder that"):
        form(tmp_path / "none", tmp_path / "out", HIP.name)


@pytest.mark.parametrize("form", [export_aimclr, export_pyskl])
def test_a_failure_while_writing_leaves_nothing(tmp_path, store, form, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(export.np, "ascontiguousarray", fail)
    with pytest.raises(InputError, match="cannot write .*: No space left on device"):
        form(store, tmp_path / "out", HIP.name)
    assert sorted(tmp_path.iterdir()) == before


def test_data_sets_from_before_coordinates_were_named(tmp_path, store):
    path = store.path / "dataset.json"
    meta = json.loads(path.read_text())
    assert meta.pop("coordinates") == "xyz"
    path.write_text(json.dumps(meta))
    assert open_store(store.path).coordinates == "xyz"
    for other in ("polar", ["xyz"]):
        path.write_text(json.dumps(meta | {"coordinates": other}))
        with pytest.raises(InputError, match="this msclr reads xyz and xy_score"):
            open_store(store.path)
