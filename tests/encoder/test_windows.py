"""Windows of long recordings."""

import numpy as np
import pytest

from msclr.encoder.windows import windows_of
from msclr.errors import InputError

LONG, SHORT = np.ones((23, 4, 3)), np.ones((2, 7, 4, 3))


def test_windows_cover_every_frame_and_the_last_ends_with_the_recording():
    found = windows_of([LONG, SHORT], 10, 5)
    spans = np.stack([found.recording, found.start, found.end], axis=1).tolist()
    assert spans == [[0, 0, 10], [0, 5, 15], [0, 10, 20], [0, 13, 23], [1, 0, 7]]
    assert [clip.shape for clip in found.clips] == [(10, 4, 3)] * 4 + [(2, 7, 4, 3)]


def test_the_stride_is_half_a_window_unless_given():
    assert windows_of([LONG], 10).start.tolist() == [0, 5, 10, 13]
    assert windows_of([LONG], 23).start.tolist() == [0]
    assert windows_of([LONG], 1, 11).start.tolist() == [0, 11, 22]


def test_windows_without_a_joint_are_left_out_and_counted():
    recording = LONG.copy()
    recording[:12] = np.nan
    found = windows_of([recording], 10, 5)
    assert found.start.tolist() == [5, 10, 13] and found.left_out == 1
    with pytest.raises(InputError, match="no window has a joint"):
        windows_of([recording[:12]], 10, 5)


@pytest.mark.parametrize(("window", "stride"), [(0, 1), (5, 0), (None, 3), (-2, None)])
def test_other_numbers_are_refused(window, stride):
    with pytest.raises(InputError, match="give"):
        windows_of([LONG], window, stride)
