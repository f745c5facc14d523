"""Tiny data and finished runs that the tests of this folder share.

As in real clips, one body moves most whatever the layout: which one it is decides the frame.
"""

from __future__ import annotations

import pytest

import msclr
from msclr.data import prepare_arrays
from msclr.training import pretrain
from tests.tiny import FRAMES, LAYOUTS, UNSEEN, tiny_clips, tiny_recipe


@pytest.fixture(scope="session")
def arguments():
    """Arguments of `prepare_arrays`: three layouts, two of which the runs are pretrained on."""
    tiny = tiny_clips((UNSEEN, *LAYOUTS))
    for clips in tiny["views"].values():
        for clip in clips:
            clip[1:] *= 0.5
    return tiny


@pytest.fixture(scope="session")
def data(arguments, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "data"
    prepare_arrays(folder, **arguments | {"frame": "body"}, frames=FRAMES)
    return folder


@pytest.fixture(scope="session")
def folders(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        stream: pretrain(tiny_recipe(data, folder / stream, stream=stream, steps=6, lr=0.01))
        for stream in ("joint", "motion", "bone")
    }


@pytest.fixture(scope="session")
def encoder(folders):
    return msclr.load(folders["joint"])
