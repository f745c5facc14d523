"""Verdicts on disk: what is kept, what is not believed, and processes that race."""

from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import asdict, replace

import pytest

from msclr.kernels import _block_sizes
from msclr.kernels._qualify import machine, store
from msclr.kernels._qualify.machine import Machine, sources_of
from msclr.kernels._qualify.store import Key, Verdict
from msclr.kernels._qualify.subjects import BLOCK, GRAPH_CONV

HOPPER = Machine("NVIDIA H100 80GB HBM3", "sm_90", "580.65.06", "2.11.0+cu130", "3.6.0")
KEY = Key("masked_graph_conv", "triton", "half", HOPPER, "0123456789abcdef")
RIGHT = Verdict(True, "right, 3 times as fast as the reference", 1e-3, 4e-3, 1e-4, 3e-4)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "msclr" / "verdicts"


def test_a_verdict_is_one_file_and_comes_back(cache):
    assert store.load(KEY) is None
    assert store.save(KEY, RIGHT) == RIGHT == store.load(KEY)
    (file,) = cache.iterdir()
    assert file.name.startswith("masked_graph_conv-triton-half-") and file.suffix == ".json"
    assert json.loads(file.read_text())["key"] == asdict(KEY)
    store.forget(KEY)
    assert store.load(KEY) is None and list(cache.iterdir()) == []


@pytest.mark.parametrize("change", [
    {"operator": "info_nce"}, {"backend": "cuda"}, {"family": "single"}, {"sources": "other"},
    {"machine": replace(HOPPER, device="NVIDIA A100")},
    {"machine": replace(HOPPER, capability="sm_80")},
    {"machine": replace(HOPPER, driver="590.1")},
    {"machine": replace(HOPPER, torch="2.12.0")}, {"machine": replace(HOPPER, triton="3.7.0")},
], ids=str)  # fmt: skip
def test_anything_else_is_another_key(change):
    store.save(KEY, RIGHT)
    assert store.load(replace(KEY, **change)) is None


KEPT = {name: value for name, value in asdict(RIGHT).items() if name != "decided"}


def with_text(text):
    return lambda path: path.write_text(text)


def with_change(**changes):
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGE = {
    "empty": with_text(""),
    "cut off": lambda path: path.write_text(path.read_text()[:-30]),
    "not JSON": with_text("adopted"),
    "a list": with_text("[]"),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "of another version": with_change(format=0),
    "of another key": with_change(key={}),
    "without a verdict": with_change(verdict=None),
    "a part of a verdict": with_change(verdict={"adopted": True, "reason": "right"}),
    "adopted is a text": with_change(verdict=KEPT | {"adopted": "False"}),
    "seconds are a list": with_change(verdict=KEPT | {"seconds": [1.0]}),
    "more than a verdict": with_change(verdict=KEPT | {"other": 1}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_is_not_right_is_decided_again(damage, cache):
    store.save(KEY, replace(RIGHT, reason="old"))
    (file,) = cache.iterdir()
    DAMAGE[damage](file)
    assert store.load(KEY) is None
    assert store.save(KEY, RIGHT) == RIGHT == store.load(KEY)


def test_the_first_of_two_that_race_is_kept():
    store.save(KEY, RIGHT)
    assert store.save(KEY, Verdict(False, "slower by a hair")) == RIGHT == store.load(KEY)


def race(letter, start):
    own = replace(RIGHT, reason=letter * 5000)
    start.wait()
    for number in range(100):
        key = replace(KEY, sources=str(number))
        store.save(key, own)
        found = store.load(key)
        assert found is not None and found.reason in ("a" * 5000, "b" * 5000)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the test forks")
def test_processes_that_race_leave_whole_files(cache):
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)
    processes = [context.Process(target=race, args=(letter, start)) for letter in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list(cache.iterdir())) == 100, "no temporary file is left"


def test_a_folder_that_cannot_be_written_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert store.save(KEY, RIGHT) == RIGHT and store.load(KEY) is None
    monkeypatch.setattr(store, "cache_folder", lambda: None)
    assert store.save(KEY, RIGHT) == RIGHT and store.load(KEY) is None
    store.forget(KEY)


def test_the_folder_is_where_the_specification_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("relative/path", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert store.cache_folder() == tmp_path / ".cache" / "msclr"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert store.cache_folder() == tmp_path / ".cache" / "msclr"


# What the hash of sources sees


def test_sources_are_the_operators_own_what_it_is_made_of_and_the_library(monkeypatch):
    seen = {}

    def note(files, more):
        seen["files"] = {str(file.relative_to(machine._KERNELS)) for file in files}
        seen["more"] = more
        return "hash"

    monkeypatch.setattr(machine, "_hash_of", note)
    monkeypatch.setattr(machine._block_sizes, "block_sizes_hash", lambda: "sizes")
    sources_of(GRAPH_CONV, "triton")
    assert {"graph_conv/triton_kernels.py", "_triton.py", "_qualify/judge.py"} <= seen["files"]
    assert not any(name.startswith(("info_nce", "_C")) for name in seen["files"])
    assert seen["more"] == "sizes"
    sources_of(BLOCK, "cpu")
    assert {"block/fused.py", "temporal_conv/operator.py", "_C.so"} <= seen["files"]
    assert seen["more"] == ""


def test_a_changed_source_is_another_hash(tmp_path):
    file = tmp_path / "kernel.py"
    found = set()
    for text in ("a", "b"):
        file.write_text(text)
        machine._hash_of.cache_clear()
        found.add(machine._hash_of((file,), ""))
    found.add(machine._hash_of((file,), "sizes"))
    assert len(found) == 3


# Block sizes


@pytest.fixture
def hopper(monkeypatch, tmp_path):
    """Writes the user's table on a machine with an H100."""
    monkeypatch.setattr(_block_sizes, "_capability", lambda: "sm_90")

    def write(text):
        path = tmp_path / "msclr" / "block_sizes.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        _block_sizes.sizes.cache_clear()

    _block_sizes.sizes.cache_clear()
    yield write
    _block_sizes.sizes.cache_clear()


@_block_sizes.tunable("test.kernel")
def rule(rows):
    return {"num_warps": 4, "BLOCK_M": 16 * rows}


def test_a_table_replaces_what_the_rule_chose(hopper):
    assert rule(2) == {"num_warps": 4, "BLOCK_M": 32} and _block_sizes.block_sizes_hash() == ""
    better = {"BLOCK_M=32,num_warps=4": {"num_warps": 8}}
    hopper(json.dumps({"sm_90": {"test.kernel": better}, "sm_80": {"test.kernel": {}}}))
    assert rule(2) == {"num_warps": 8, "BLOCK_M": 32}
    assert rule(3) == {"num_warps": 4, "BLOCK_M": 48}
    first = _block_sizes.block_sizes_hash()
    hopper(json.dumps({"sm_90": {"test.kernel": better | {"BLOCK_M=48,num_warps=4": {}}}}))
    assert len(first) == 12 and _block_sizes.block_sizes_hash() != first
    hopper(json.dumps({"sm_80": {"test.kernel": better}}))
    assert rule(2)["num_warps"] == 4 and _block_sizes.block_sizes_hash() == ""


@pytest.mark.parametrize("text", ["", "[]", '{"sm_90": 1}', '{"sm_90": {"k": {"c": {"B": "16"}}}}'])
def test_a_table_that_is_not_right_is_one_warning(text, hopper, caplog):
    hopper(text)
    assert rule(2)["num_warps"] == 4
    (record,) = caplog.records
    assert "block_sizes.json is not used" in record.message and "\n" not in record.message
