"""What a file does not say: taken from its form where that fixes it, seen in the data, or asked."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from msclr import layouts as layout_registry
from msclr.errors import InputError
from msclr.layouts.layout import Layout

# Coordinates -> joints -> the layout that all files of these forms with so many joints have.
_FIXED = {
    "xyz": {25: "kinectv2_25"},  # NTU RGB+D
    "xy_score": {17: "coco_17", 18: "openpose_18"},
}
# Joint counts that one convention in use has, as far as is known: taken, with a note.
_LIKELY = {33: "mediapipe_33", 42: "smplx_42", 43: "berkeley_mhad_43"}
_MOST_SCORE = 1.1  # pose estimators overshoot 1 a little


def layout_of(joints: int, coordinates: str, where: str, how: str) -> tuple[Layout, list[str]]:
    """The layout of clips of V = `joints`, where neither the file nor the user names it.

    where: the file, and how: how to name its layout, for messages. Returns the layout and notes
    for the report: one where it is likely, none where the form fixes it. Raises InputError for any
    other number of joints: layouts of projects that are not known here have as many.
    """
    fixed = _FIXED[coordinates].get(joints)
    if fixed is not None:
        return layout_registry.get(fixed), []
    likely = _LIKELY.get(joints)
    if likely is not None:
        note = f"{likely} was guessed from the number of joints; if they are another's, {how}"
        return layout_registry.get(likely), [note]
    found = [layout_registry.get(name) for name in layout_registry.names()]
    known = ", ".join(layout.name for layout in found if layout.num_joints == joints)
    flat = " in two dimensions" if coordinates == "xy_score" else ""
    raise InputError(
        f"{where} has {joints} joints{flat}, as {known or 'no known layout'}; name its layout, "
        f"which their number does not tell: {how}"
    )


def looks_like_score(clips: Iterable[np.ndarray], in_image: bool = False) -> bool:
    """Whether the third channel of all `clips` (…, 3) looks like a score and not like z.

    It lies in 0..1 and is 0 exactly where x and y are: a joint that was not found. Of clips that
    come with the size of their image (`in_image`) the first is enough. Stops at the first clip that
    says otherwise, so that clips of three dimensions cost next to nothing.
    """
    positive = False
    for clip in clips:
        x, y, third = (np.asarray(clip)[..., axis] for axis in range(3))
        finite = np.isfinite(x) & np.isfinite(y) & np.isfinite(third)
        bounded = (third >= 0) & (third <= _MOST_SCORE)
        marked = in_image | (((x == 0) & (y == 0)) == (third == 0))
        if not (bounded & marked | ~finite).all():
            return False
        positive |= bool((third[finite] > 0).any())
    return positive
