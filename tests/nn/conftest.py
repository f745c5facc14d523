"""Tests of accelerate take blocks so small that they would not be worth running whole."""

from __future__ import annotations

import pytest

from msclr.nn.accelerate import blocks


@pytest.fixture(autouse=True)
def every_size_pays(monkeypatch):
    monkeypatch.setattr(blocks, "too_small", lambda rows, channels: False)
