"""Whether two runs are the same to the last bit."""

from __future__ import annotations

import torch

from msclr.training.checkpoint import load_checkpoint
from tests.tiny import column


def flat(state, path=""):
    """Every leaf of nested dicts and lists, by its path."""
    if isinstance(state, dict):
        state = state.items()
    elif isinstance(state, (list, tuple)):
        state = enumerate(state)
    else:
        return {path: state}
    return {p: leaf for key, value in state for p, leaf in flat(value, f"{path}/{key}").items()}


def assert_same_run(run, whole):
    for name in ("step", "epoch", "loss", "contrast_accuracy", "lr"):
        assert column(run, name) == column(whole, name)
    mine, theirs = (flat(load_checkpoint(f / "checkpoint.pt")) for f in (run, whole))
    assert mine.keys() == theirs.keys()
    for key, leaf in mine.items():
        if torch.is_tensor(leaf):  # bits, so that -0 is not 0
            assert leaf.numpy().tobytes() == theirs[key].numpy().tobytes(), key
        elif key != "/recipe/out":
            assert leaf == theirs[key], key
