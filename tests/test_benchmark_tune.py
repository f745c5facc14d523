"""`msclr bench --tune`: which block sizes are kept, and where."""

from __future__ import annotations

import json

import pytest

from benchmarks import tune
from msclr import kernels
from msclr.cli import main
from msclr.kernels import _block_sizes

CHOICE = "BLOCK_M=64,num_warps=4"
PLACES = [("a.stream", CHOICE), ("a.combine", "BLOCK_N=32")]
FAST, FASTER, SLOW = {"BLOCK_M": 128}, {"num_warps": 8}, {"BLOCK_M": 32}


def seconds(table):
    """The rules take 1; each change its own factor. Two of them together may be worse."""
    took = {(): 1.0, 128: 0.9, 8: 0.7, 32: 1.2, 64: 0.97, 16: 0.94}
    total = 1.0
    for choices in table.values():
        for change in choices.values():
            ((_, value),) = change.items()
            if value not in took:
                raise RuntimeError("out of resource: shared memory")
            total *= took[value]
    return total


def test_the_fastest_right_change_of_each_place_is_kept():
    found = tune.best_changes(PLACES, seconds, lambda table: True)
    assert found == {"a.stream": {CHOICE: FASTER}, "a.combine": {"BLOCK_N=32": {"BLOCK_N": 16}}}


def test_a_wrong_change_is_not_kept_and_the_next_is():
    found = tune.best_changes(
        PLACES[:1], seconds, lambda table: FASTER not in table["a.stream"].values()
    )
    assert found == {"a.stream": {CHOICE: FAST}}
    assert tune.best_changes(PLACES, seconds, lambda table: False) == {}


def test_what_gains_too_little_is_not_kept():
    assert tune.best_changes(PLACES, lambda table: 0.97 if table else 1.0, bool) == {}
    places = [PLACES[0], ("a.combine", "BLOCK_N=128")]  # of which 64 takes 0.97, and 256 fails
    assert tune.best_changes(places, seconds, bool) == {"a.stream": {CHOICE: FASTER}}


def test_changes_that_are_worse_together_are_not_kept():
    def together(table):
        return 2.0 if len(table) == 2 else seconds(table)

    assert tune.best_changes(PLACES, together, lambda table: True) == {}


def test_kept_sizes_replace_the_rules_and_those_of_other_gpus_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(_block_sizes, "_capability", lambda: "sm_90")
    _block_sizes.sizes.cache_clear()
    path = tmp_path / "msclr" / "block_sizes.json"
    path.parent.mkdir()
    other = {"sm_80": {"a.stream": {CHOICE: SLOW}}}
    path.write_text(json.dumps(other))
    assert _block_sizes.block_sizes_hash() == ""
    try:
        assert _block_sizes.save_own({"a.stream": {CHOICE: FAST}}) == path
        assert json.loads(path.read_text()) == other | {"sm_90": {"a.stream": {CHOICE: FAST}}}
        assert [p.name for p in path.parent.iterdir()] == [path.name]

        @_block_sizes.tunable("a.stream")
        def rule():
            return {"num_warps": 4, "BLOCK_M": 64}

        assert rule() == {"num_warps": 4, "BLOCK_M": 128} and _block_sizes.block_sizes_hash()
    finally:
        _block_sizes.sizes.cache_clear()


@pytest.mark.skipif(not kernels.backends()["triton"], reason="there is a GPU to tune")
def test_without_a_gpu_it_says_so_in_one_line(capsys):
    assert main(["bench", "--tune"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "nothing to tune" in line
