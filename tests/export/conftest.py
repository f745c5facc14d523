"""A tiny run of two layouts, and what is exported of it, once for all tests."""

from __future__ import annotations

import pytest

import msclr
from msclr.data import prepare_arrays
from msclr.evaluation import evaluate_linear, open_run
from msclr.training import pretrain
from tests.tiny import FRAMES, tiny_clips, tiny_recipe


@pytest.fixture(scope="session")
def clips():
    """Raw clips by layout; the odd ones have a second body. A joint is lost now and then."""
    views = tiny_clips()["views"]
    for of_layout in views.values():
        for number, clip in enumerate(of_layout):
            clip[1:] *= 0.5  # one body moves most, whatever the layout
            clip[0, 2:4, number % 9] = float("nan")
    return views


@pytest.fixture(scope="session")
def run(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    prepare_arrays(folder / "data", **tiny_clips() | {"views": clips}, frames=FRAMES)
    recipe = tiny_recipe(folder / "data", folder / "run", steps=6, lr=0.01)
    made = pretrain(recipe)
    for layout in clips:
        evaluate_linear(open_run(made), layout, epochs=5)
    return made


@pytest.fixture(scope="session")
def encoder(run):
    return msclr.load(run)
