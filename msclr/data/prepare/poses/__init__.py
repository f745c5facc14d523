"""Poses of other conventions: one file a video, as MeTRAbs and its like write them."""

from __future__ import annotations

from msclr.data.prepare.poses.folder import PoseFolder
from msclr.data.prepare.poses.people import follow_people, match_people

__all__ = ["PoseFolder", "follow_people", "match_people"]
