"""Tiny data and finished runs that the tests of this folder share."""

from __future__ import annotations

import pytest

from msclr.evaluation import open_run
from msclr.training import pretrain
from tests.tiny import LAYOUTS, UNSEEN, prepare_tiny, tiny_recipe


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Three layouts, two of which the runs are pretrained on."""
    return prepare_tiny(tmp_path_factory.mktemp("tiny") / "data", (UNSEEN, *LAYOUTS))


@pytest.fixture(scope="session")
def folders(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        stream: pretrain(tiny_recipe(data, folder / stream, stream=stream, steps=6, lr=0.01))
        for stream in ("joint", "motion", "bone")
    }


@pytest.fixture
def run(folders):
    return open_run(folders["joint"])
