"""A run of `prepare_ntu` in several processes, cut off, and what goes on from where it was."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from msclr.data.prepare.ntu import BodyRules, job, prepare_ntu, processes
from msclr.data.prepare.ntu.prepare import _settings
from msclr.data.prepare.ntu.sources import find_clips
from msclr.data.store import open_store
from tests.data.skeleton_files import clip_names, empty_frames, write_tree
from tests.tiny import tree

pytestmark = pytest.mark.usefixtures("small_ranges")


@pytest.fixture(scope="module")
def skeletons(tmp_path_factory) -> Path:
    """60 clips of both splits; nobody is in two of them, so that later rows move up."""
    folder = tmp_path_factory.mktemp("skeletons")
    names = [f"{name[:16]}A{1 + 7 * i % 60:03}" for i, name in enumerate(clip_names(60, actions=1))]
    files = write_tree(folder, names, frames=(20, 34), variety=6, ghosts=0.4, lost=0.4)
    for file in (files[2], files[20]):
        file.write_text("2\n0\n0\n")
    return folder


def prepare(skeletons, out: Path, **options):
    return prepare_ntu("ntu60", skeletons, out, **(dict(protocol="xsub", workers=1) | options))


@pytest.fixture
def made_here(monkeypatch) -> list[int]:
    """The ranges that this process converts; it dawdles, so that others get to do something."""
    here: list[int] = []

    class Slow(processes.RangeConverter):
        def convert(self, clips):
            here.append(clips.number)
            time.sleep(0.5 if len(here) == 1 else 0.01)
            return super().convert(clips)

    monkeypatch.setattr(processes, "RangeConverter", Slow)
    return here


def test_two_processes_make_the_same_bytes(skeletons, prepared, tmp_path, made_here, monkeypatch):
    class Patient(processes.RangeConverter):
        def convert(self, clips):
            """Not before the other process, however slowly it starts, has written one as well."""
            end = time.monotonic() + 60
            while not any(file.stat().st_size > 1000 for file in tmp_path.rglob("kinectv2_25.npy")):
                assert time.monotonic() < end, "the other process makes nothing"
                time.sleep(0.01)
            return super().convert(clips)

    monkeypatch.setattr(processes, "RangeConverter", Patient)
    calls = []
    prepare(skeletons, tmp_path / "ntu", workers=2, on_clip=lambda *call: calls.append(call))
    assert tree(tmp_path / "ntu") == tree(prepared[0])
    assert calls[-1] == (60, 60) and calls == sorted(calls)
    assert 0 < len(made_here) < 8 == len(calls)


def test_a_worker_that_dies_ends_the_run_and_what_is_done_stays(
    skeletons, prepared, tmp_path, made_here, monkeypatch
):
    dies = "import pickle, sys; pickle.dump(None, sys.stdout.buffer); sys.exit(7)  # {!r}"
    with monkeypatch.context() as patch:
        patch.setattr(processes, "_START", dies)
        with pytest.raises(RuntimeError, match="ended with status 7; what is done is kept"):
            prepare(skeletons, tmp_path / "ntu", workers=2)
    assert os.listdir(tmp_path) == [".ntu.prepare"]
    prepare(skeletons, tmp_path / "ntu")
    assert tree(tmp_path / "ntu") == tree(prepared[0])


KILLED = """
import os, signal, sys
from msclr.data.prepare.ntu import prepare_ntu, job
job.RANGE = {size}
def stop(done, clips):
    if done >= 3 * {size}:
        os.kill(os.getpid(), signal.SIGKILL)
prepare_ntu("ntu60", sys.argv[1], sys.argv[2], protocol="xsub", workers=1, on_clip=stop)
"""


def kill_halfway(skeletons: Path, out: Path) -> Path:
    """A run that dies after three ranges; returns its job folder."""
    code = KILLED.format(size=job.RANGE)
    done = subprocess.run([sys.executable, "-c", code, str(skeletons), str(out)])
    assert done.returncode == -signal.SIGKILL and not out.exists()
    return out.parent / f".{out.name}.prepare"


def test_a_killed_run_goes_on_where_it_was(skeletons, prepared, tmp_path, made_here):
    left = kill_halfway(skeletons, tmp_path / "ntu")
    with open(left / "job", "a") as file:
        file.write('{"number": 24, "names"')  # killed as it wrote
    calls = []
    prepare(skeletons, tmp_path / "ntu", on_clip=lambda *call: calls.append(call))
    assert calls[:4] == [(8, 60), (16, 60), (24, 60), (32, 60)]
    assert made_here == [24, 32, 40, 48, 56]
    assert tree(tmp_path / "ntu") == tree(prepared[0])
    assert os.listdir(tmp_path) == ["ntu"]


@pytest.mark.parametrize("lost", ["a row", "the end", "the job"])
def test_rows_that_the_disk_lost_are_made_again(skeletons, prepared, tmp_path, made_here, lost):
    """After a power cut, what the job file calls done may not be on the disk, nor that file."""
    left = kill_halfway(skeletons, tmp_path / "ntu")
    (file,) = left.glob("*/train/kinectv2_25.npy")
    whole = file.read_bytes()
    if lost == "a row":
        file.write_bytes(whole[:200] + bytes(1000) + whole[1200:])
    elif lost == "the end":
        file.write_bytes(whole[:-1000])
    else:
        (left / "job").write_bytes(b"\xff\0")
    prepare(skeletons, tmp_path / "ntu")
    again = {"a row": [0], "the end": [16], "the job": [0, 8, 16]}[lost]
    assert made_here == [*again, 24, 32, 40, 48, 56]
    assert tree(tmp_path / "ntu") == tree(prepared[0])


def test_an_interrupted_run_leaves_no_worker_and_goes_on(skeletons, prepared, tmp_path):
    def interrupt(done, clips):
        if done >= 16:
            raise KeyboardInterrupt

    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        prepare(skeletons, tmp_path / "ntu", workers=2, on_clip=interrupt)
    assert threading.active_count() == threads  # each waits for its worker's end
    assert os.listdir(tmp_path) == [".ntu.prepare"]
    prepare(skeletons, tmp_path / "ntu")
    assert tree(tmp_path / "ntu") == tree(prepared[0])


def test_what_another_job_left_is_not_used(skeletons, prepared, tmp_path):
    kill_halfway(skeletons, tmp_path / "ntu")
    prepare(skeletons, tmp_path / "ntu", frames=51)
    prepare(skeletons, tmp_path / "other" / "ntu", frames=51)
    assert tree(tmp_path / "ntu") == tree(tmp_path / "other" / "ntu")
    shutil.rmtree(tmp_path / "other")
    assert open_store(tmp_path / "ntu").frames == 51
    assert os.listdir(tmp_path) == ["ntu"]


@pytest.mark.parametrize(
    "change",
    [dict(frames=51), dict(bodies=1), dict(rules=BodyRules(min_frames=3)), dict(frame="body")],
)
def test_the_job_is_its_options(skeletons, tmp_path, change):
    options = dict(frames=50, bodies=2, rules=BodyRules())
    keys = [_key(skeletons, tmp_path, **o) for o in (options, options, options | change)]
    assert keys[0] == keys[1] != keys[2]


def test_the_job_is_its_files(tmp_path):
    path, *_ = write_tree(tmp_path / "in", clip_names(2), frames=12, variety=2)
    options = dict(frames=50, bodies=2, rules=BodyRules())
    before = _key(tmp_path / "in", tmp_path, **options)
    path.write_text(empty_frames(12))
    assert _key(tmp_path / "in", tmp_path, **options) != before


def test_the_job_is_its_splits(skeletons, tmp_path):
    options = dict(frames=50, bodies=2, rules=BodyRules())
    assert _key(skeletons, tmp_path, **options) != _key(skeletons, tmp_path, **options, split="val")


def _key(skeletons: Path, tmp_path: Path, frames, bodies, rules, frame="ntu", split="train") -> str:
    settings = _settings(frames, bodies, rules, {}, "drop", (), (frame, None))
    return job.fingerprint([(clip, split) for clip in find_clips(skeletons)], settings)
