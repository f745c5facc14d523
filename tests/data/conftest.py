"""What the tests of `prepare_ntu` share."""

from __future__ import annotations

import pytest

from msclr.data.prepare.ntu import job, prepare_ntu


@pytest.fixture(scope="module")
def small_ranges():
    """Of 8 clips, so that few make many ranges."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "RANGE", 8)
        yield


@pytest.fixture(scope="module")
def prepared(small_ranges, skeletons, tmp_path_factory):
    """The folder and the report of what one process makes of a module's `skeletons`."""
    out = tmp_path_factory.mktemp("prepared") / "ntu"
    return out, prepare_ntu("ntu60", skeletons, out, protocol="xsub", workers=1)
