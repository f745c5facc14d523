"""Tiny data and an undisturbed run that the tests of this folder share; none may change them."""

from __future__ import annotations

import pytest

from msclr.training import pretrain
from tests.tiny import prepare_tiny, tiny_recipe


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return prepare_tiny(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="session")
def whole(data, tmp_path_factory):
    return pretrain(tiny_recipe(data, tmp_path_factory.mktemp("whole") / "run"))
