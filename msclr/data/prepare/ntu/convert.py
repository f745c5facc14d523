"""From one NTU clip to its bodies under every layout of the data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from msclr.data.derive import Derivation, derive_clips
from msclr.data.prepare.clean import Cleaned, Rules, clean_clip
from msclr.data.prepare.ntu.bodies import BodyCounts, BodyRules, choose_bodies
from msclr.data.prepare.report import Counts
from msclr.data.prepare.steps import seen_joints
from msclr.data.skeleton import Skeleton
from msclr.data.skeleton.frame import Frame
from msclr.errors import InputError
from msclr.layouts.layout import Layout

_FURTHEST = 1e18  # metres; a sum of squares stays within float32


@dataclass(frozen=True)
class Settings:
    """How every clip is prepared. It travels to the processes that do so.

    people: which bodies of a clip are kept; clean: how those are cleaned
    poses: layout name -> what has `layout` and `read(name)` as `PoseFolder`
    derived: layout name -> how it follows from the Kinect's
    """

    kinect: Layout
    bodies: int
    people: BodyRules
    clean: Rules
    poses: Mapping[str, Any]
    keep_absent: bool
    derived: Mapping[str, Derivation]

    @property
    def layouts(self) -> dict[str, Layout]:
        """All layouts, in the order of the data set."""
        poses = {name: source.layout for name, source in self.poses.items()}
        derived = {name: each.target for name, each in self.derived.items()}
        return {self.kinect.name: self.kinect} | poses | derived


class Dropped(Exception):
    """Why a clip is not in the data set: "empty", or the layout it has no poses under."""


class Converter:
    """Converts clips one by one and counts what it finds."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.counts = {settings.kinect.name: Counts()} | {name: Counts() for name in settings.poses}
        self.body_counts = BodyCounts()
        self.unmatched = 0  # bodies dropped, as the poses of some layout lack them
        self.absent_views = dict.fromkeys(settings.poses, 0)  # bodies that are 0 under a layout

    def convert(self, name: str, skeleton: Skeleton) -> dict[str, Cleaned]:
        """Layout name -> the m >= 1 bodies of a clip, the most moving first.

        A body that the poses of a layout lack is dropped from all layouts, or 0 under that layout
        (`keep_absent`). Raises Dropped, and InputError for poses that cannot be read and for
        coordinates that are no lengths.
        """
        settings = self._settings
        chosen = choose_bodies(skeleton, settings.bodies, settings.people)
        if not len(chosen.xyz):
            raise Dropped("empty")
        poses, kept = self._poses(name, chosen.xyz, chosen.seen)
        self.body_counts.add(chosen.counts)
        self.unmatched += int((~kept).sum())

        kinect = settings.kinect
        views = {kinect.name: self._clean(kinect, chosen.xyz[kept], chosen.seen[kept])}
        for layout, (people, body) in poses.items():
            views[layout] = self._clean_poses(settings.poses[layout].layout, people, body[kept])
        xyz, _, frame = views[kinect.name]
        ever = chosen.seen[kept].any(axis=1)
        for layout, (_, target, matrix) in settings.derived.items():
            center = target.center_index if settings.clean.placement.centred else None
            views[layout] = Cleaned(derive_clips(matrix, xyz, ever, center), ever, frame)
        return views

    def _clean(self, layout: Layout, xyz: np.ndarray, seen: np.ndarray) -> Cleaned:
        if np.abs(xyz if seen.all() else xyz[seen]).max() > _FURTHEST:
            raise InputError("coordinates too large for float32")
        counts = self.counts[layout.name]
        cleaned = clean_clip(xyz, seen, layout, self._settings.clean, counts)
        if what := cleaned.frame.lacking:
            counts.unframed[what] = counts.unframed.get(what, 0) + 1
        return cleaned

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

    def _clean_poses(self, layout: Layout, people, body: np.ndarray) -> Cleaned:
        there = body >= 0
        self.absent_views[layout.name] += int((~there).sum())
        xyz = np.zeros((len(body), self._settings.clean.frames, layout.num_joints, 3))
        ever = np.zeros((len(body), layout.num_joints), bool)
        frame = Frame(np.eye(3), np.zeros(3))
        if there.any():
            raw = people[body[there]]
            xyz[there], ever[there], frame = self._clean(layout, raw, seen_joints(raw))
        return Cleaned(xyz, ever, frame)
