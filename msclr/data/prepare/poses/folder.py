"""A folder of pose files, one per clip, under one layout."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import numpy as np

from msclr.data.prepare.poses.files import SUFFIXES, PoseFile, read_pose_file
from msclr.data.prepare.poses.people import follow_people
from msclr.data.prepare.steps import seen_joints
from msclr.errors import InputError
from msclr.layouts.layout import Layout
from msclr.paths import as_path

# Metres: the median bone of the shipped layouts is 0.1 to 0.4 m long on a person.
_PLAUSIBLE_BONE = (0.03, 1.5)
_CLIP = re.compile(r"S\d{3}C\d{3}P\d{3}R\d{3}A\d{3}(?!\d)")

logger = logging.getLogger(__name__)


class PoseFolder:
    """The pose files of a folder and its subfolders, found by the clip names in their file names.

    folder: holds files such as `S001C001P001R001A001.pt` or `S001C001P001R001A001_rgb.npz`, in the
        forms that `read_pose_file` lists. Files without a clip's name are left alone.
    layout: of the poses. Where a file has `joint_names`, its joints are put into the layout's order
        by them; a file without has them in that order.
    scale: metres per unit of the files, 0.001 for the millimetres of MeTRAbs.

    Raises InputError where the folder cannot be read, has no such file, or two for one clip.
    """

    def __init__(self, folder: str | os.PathLike[str], layout: Layout, scale: float = 0.001):
        if not 0 < scale < float("inf"):
            raise InputError(f"the scale of poses is {scale}; wanted metres per unit, above 0")
        self.folder = as_path(folder).absolute()  # read from later, from wherever that may be
        self.layout, self.scale = layout, float(scale)
        self._files = _find(self.folder)

    def names(self) -> set[str]:
        """The names of the clips that have a file."""
        return set(self._files)

    def stamps(self) -> list[tuple]:
        """What `read` depends on, layout apart: the scale, and of each file its clip and place, its
        size and the time of its last change."""
        states = [(name, str(path), path.stat()) for name, path in sorted(self._files.items())]
        return [(self.scale,), *((*at, file.st_size, file.st_mtime_ns) for *at, file in states)]

    def read(self, name: str) -> np.ndarray | None:
        """The people of one clip, each followed over time; None where the clip has no file.

        Returns (P, T, V, 3) float64 in metres, in order of first appearance, all NaN in the frames
        where a person is absent; P is 0 where the file holds nobody. Axes are the file's.
        Raises InputError, with the file's name, for a file that cannot be read, with other joints
        than the layout's, or whose bones are no person's at this scale.
        """
        path = self._files.get(name)
        if path is None:
            return None
        try:
            frames = self._in_order(read_pose_file(path))
            people = follow_people([frame * self.scale for frame in frames])
            self._check_units(people)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        return people

    def _in_order(self, file: PoseFile) -> list[np.ndarray]:
        """The frames as (m_t, V, 3) float64 with the joints in the layout's order."""
        joints = self.layout.num_joints
        came = next((frame.shape[1] for frame in file.frames if frame.size), joints)
        named = file.joint_names
        if named is not None and len(named) != came:
            raise InputError(f"has {came} joints but {len(named)} joint_names")
        if named is not None:
            order = _order(named, self.layout)
        elif came == joints:
            order = slice(None)
        else:
            raise InputError(f"has {came} joints, but layout {self.layout.name} has {joints}")
        return [
            frame[:, order].astype(np.float64) if frame.size else np.empty((0, joints, 3))
            for frame in file.frames
        ]

    def _check_units(self, people: np.ndarray) -> None:
        if not self.layout.bones or not len(people):
            return
        child, parent = np.array(self.layout.bone_indices).T
        seen = seen_joints(people)  # (P, T, V)
        both = seen[:, :, child] & seen[:, :, parent]
        with np.errstate(over="ignore"):  # an absurd joint; the median will tell
            bones = people[:, :, child][both] - people[:, :, parent][both]
            length = np.linalg.norm(bones, axis=-1)
        median = float(np.median(length)) if length.size else 0.0
        low, high = _PLAUSIBLE_BONE
        if length.size and not low <= median <= high:
            raise InputError(
                f"the median bone is {median:.3g} m long at {self.scale:g} m per unit; "
                "give --pose-scale, 0.001 for millimetres and 1 for metres"
            )


def _find(folder: Path) -> dict[str, Path]:
    """Clip name -> file."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the one with the pose files")
    found: dict[str, Path] = {}
    others = 0
    for path in sorted(Path(top, file) for top, _, files in os.walk(folder) for file in files):
        match = _CLIP.search(path.stem)
        if path.suffix not in SUFFIXES or match is None:
            others += 1
            continue
        first = found.setdefault(match[0], path)
        if first is not path:
            raise InputError(f"{first} and {path} are both poses of {match[0]}; keep one of them")
    if not found:
        raise InputError(
            f"{folder} has no pose file; wanted names such as S001C001P001R001A001.pt, with one of "
            f"the endings {', '.join(SUFFIXES)}"
        )
    if others:
        logger.info("%s: %d files are no pose file of a clip", folder, others)
    return found


def _order(named: tuple[str, ...], layout: Layout) -> list[int]:
    """Where each joint of the layout is in the file."""
    missing = [joint for joint in layout.joints if joint not in named]
    unknown = [joint for joint in named if joint not in layout.joints]
    if missing or unknown:
        parts = [f"lacks {', '.join(missing)}"] * bool(missing)
        parts += [f"has {', '.join(unknown)} that are not among its joints"] * bool(unknown)
        raise InputError(f"joint_names do not fit layout {layout.name}: {'; '.join(parts)}")
    return [named.index(joint) for joint in layout.joints]
