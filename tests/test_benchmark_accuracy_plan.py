"""Which runs of a plan count as done before."""

from __future__ import annotations

from types import SimpleNamespace

from benchmarks.accuracy import plan
from msclr.config import make_recipe

STORE = SimpleNamespace(meta={"checksums": {"train/labels.npy": "abc"}})


def digest(streams=(), **values):
    return plan._digest(make_recipe({"data": "d", "out": "o"} | values), [STORE], False, streams)


def test_a_new_key_of_recipes_does_not_make_done_runs_unknown():
    """Where this fails for a key that was added, name it in _LATER_KEYS with its default."""
    assert digest() == digest(out="elsewhere") == "13192638"


def test_runs_that_differ_have_other_files():
    unlike = [digest(), digest(sub_layouts=1), digest(sub_layouts=2), digest(lr=0.2)]
    unlike += [digest(("joint", "bone")), digest(seed=1)]
    assert len(set(unlike)) == len(unlike)
