"""From one NTU clip to its bodies under every layout of the data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from msclr.data.derive import Derivation, derive_clips
from msclr.data.prepare._place import Placement
from msclr.data.prepare.clean import seen_joints
from msclr.data.prepare.ntu.bodies import BodyCounts, BodyRules, choose_bodies
from msclr.data.prepare.ntu.cleaner import Cleaner, ViewCounts
from msclr.data.skeleton import Skeleton
from msclr.data.skeleton.frame import Frame
from msclr.layouts.layout import Layout


@dataclass(frozen=True)
class Settings:
    """How every clip is prepared. It travels to the processes that do so.

    poses: layout name -> what has `layout` and `read(name)` as `PoseFolder`
    derived: layout name -> how it follows from the Kinect's
    placement: the frame and the size of the clips
    """

    kinect: Layout
    frames: int
    bodies: int
    rules: BodyRules
    poses: Mapping[str, Any]
    keep_absent: bool
    derived: Mapping[str, Derivation]
    placement: Placement

    @property
    def layouts(self) -> dict[str, Layout]:
        """Of all views, in the order of the data set."""
        poses = {name: source.layout for name, source in self.poses.items()}
        derived = {name: each.target for name, each in self.derived.items()}
        return {self.kinect.name: self.kinect} | poses | derived


class Dropped(Exception):
    """Why a clip is not in the data set: "empty", or the layout it has no poses under."""


class ClipPreparer:
    """Prepares clips one by one and counts what it finds."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cleaners = {
            name: Cleaner(layout, settings.frames, settings.placement)
            for name, layout in settings.layouts.items()
            if name not in settings.derived
        }
        self.body_counts = BodyCounts()
        self.unmatched = 0  # bodies dropped, as the poses of some layout lack them
        self.absent_views = dict.fromkeys(settings.poses, 0)  # bodies that are 0 under a layout

    @property
    def view_counts(self) -> dict[str, ViewCounts]:
        return {name: cleaner.counts for name, cleaner in self._cleaners.items()}

    def prepare(self, name: str, skeleton: Skeleton) -> dict[str, tuple[np.ndarray, Frame]]:
        """Layout name -> (m, frames, V, 3) float64, the most moving of m >= 1 bodies first, and the
        constants of the clip's frame.

        A body that the poses of a layout lack is dropped from all layouts, or 0 under that layout
        (`keep_absent`). Raises Dropped, and InputError for poses that cannot be read.
        """
        settings = self._settings
        chosen = choose_bodies(skeleton, settings.bodies, settings.rules)
        if not len(chosen.xyz):
            raise Dropped("empty")
        poses, kept = self._poses(name, chosen.xyz, chosen.seen)
        self.body_counts.add(chosen.counts)
        self.unmatched += int((~kept).sum())

        kinect = settings.kinect.name
        views = {kinect: self._cleaners[kinect].clean(chosen.xyz[kept], chosen.seen[kept])}
        for layout, (people, body) in poses.items():
            views[layout] = self._clean_poses(layout, people, body[kept])
        ever = chosen.seen[kept].any(axis=1)
        for layout, (_, target, matrix) in settings.derived.items():
            xyz, frame = views[kinect]
            center = target.center_index if settings.placement.centred else None
            views[layout] = derive_clips(matrix, xyz, ever, center), frame
        return views

    def _poses(self, name: str, xyz: np.ndarray, seen: np.ndarray):
        """Layout -> (people (P, T, V, 3), which of them each body is (M,) or -1), and bodies kept.

        A layout without poses of the clip has no people.
        """
        settings, found = self._settings, {}
        kept = np.ones(len(xyz), bool)
        if not settings.poses:
            return found, kept
        from msclr.data.prepare.poses import match_people  # loads SciPy

        center = settings.kinect.center_index
        places = np.where(seen[:, :, center, None], xyz[:, :, center], np.nan)  # (M, T, 3)
        for layout, source in settings.poses.items():
            people = source.read(name)
            if people is None or not len(people):
                people, body = None, np.full(len(xyz), -1)
            else:
                body = match_people(places, people[:, :, source.layout.center_index])
            if not settings.keep_absent:
                kept &= body >= 0
                if not kept.any():
                    raise Dropped(layout)
            found[layout] = people, body
        return found, kept

    def _clean_poses(self, layout: str, people, body: np.ndarray) -> tuple[np.ndarray, Frame]:
        cleaner = self._cleaners[layout]
        frames, joints = self._settings.frames, cleaner.layout.num_joints
        xyz = np.zeros((len(body), frames, joints, 3))
        there, frame = body >= 0, Frame(np.eye(3), np.zeros(3))
        self.absent_views[layout] += int((~there).sum())
        if there.any():
            raw = people[body[there]]
            xyz[there], frame = cleaner.clean(raw, seen_joints(raw))
        return xyz, frame
