"""Set-up shared by all tests."""

import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

ROOT = str(Path(__file__).resolve().parents[1])
if ROOT not in sys.path:  # for `benchmarks` and helpers of the tests, where only pytest is called
    sys.path.append(ROOT)  # last, so that an installed msclr is not hidden

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores; so do processes they start
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)

with suppress(ImportError):  # a machine that measures alone may lack it
    from hypothesis import settings

    # Drawn cases are the same in every run, so that a change is what made a test fail.
    # --hypothesis-profile=default draws others.
    settings.register_profile("repeatable", derandomize=True)
    settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real clips, which are no part of this project; skips where it is absent."""
    beside_the_checkout = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MSCLR_SHARED_DATA", beside_the_checkout))
    if not folder.is_dir():
        pytest.skip(f"no real clips: {folder} is not a folder (MSCLR_SHARED_DATA names another)")
    return folder


@pytest.fixture(autouse=True)
def layouts_of_the_test_alone():
    """Unregister the layouts that a test registered."""
    from msclr.layouts import registry

    known = registry._by_name()
    before = dict(known)
    yield
    known.clear()
    known.update(before)
