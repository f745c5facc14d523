"""Landmarks of a layout whose file has none, read from the names of its joints."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from msclr.errors import InputError
from msclr.layouts import registry
from msclr.layouts.layout import Layout

_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SIDES = {"l": "l", "left": "l", "r": "r", "right": "r"}

# Names without their side, as one word. Of a body's limbs, by preference: the first that is there.
_LIMBS = {
    "hip": ("hip", "upleg", "upperleg", "thigh", "femur", "hips"),
    "knee": ("knee", "kne", "lowerleg", "calf", "shin", "tibia"),
    "ankle": ("ankle", "ank"),
    "shoulder": ("shoulder", "sho", "shou", "upperarm", "uparm", "humerus"),
    "elbow": ("elbow", "elb", "forearm", "lowerarm", "lowarm"),
    "wrist": ("wrist", "wri"),
    "hand": ("hand", "han", "palm"),
    "fingertip": ("fingertip", "handtip", "tip"),
    "thumb": ("thumb", "thu", "thumbtip"),
    "ball": ("ball", "toebase", "foot", "foo"),
    "toe": ("toe", "toes", "toetip", "bigtoe"),
    "heel": ("heel", "hee"),
    "clavicle": ("clavicle", "collar", "clav", "collarbone"),
    "eye": ("eye",),
    "ear": ("ear",),
}
_MIDDLE = {
    "spine_mid": ("spinemid", "midspine"),
    "neck_base": (
        "shouldercenter",
        "shouldercentre",
        "spineshoulder",
        "neckbase",
        "thorax",
        "neck",
    ),
    "neck": ("neck",),
    "head": ("head",),
    "head_top": ("headtop", "tophead", "htop", "topofhead"),
    "nose": ("nose",),
}
_MID_HIP = {"lhip": 0.5, "rhip": 0.5}  # a root or pelvis may lie higher
LIMBS = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")


def with_landmarks(layout: Layout) -> tuple[Layout, str]:
    """The layout with landmarks, and what to tell the user about where they are from ("": nothing).

    Its own; or, where it has none as in data sets and checkpoints, those of the known layout that
    it equals; else what the names of its joints say, which the text lists.

    Raises InputError naming the landmarks that cannot be found.
    """
    if layout.landmarks:
        return layout, ""
    known = registry.get(layout.name) if layout.name in registry.names() else None
    if known == layout and known.landmarks:
        return known, ""
    landmarks = proposed_landmarks(layout)
    fields = layout.to_dict() | {"landmarks": landmarks}
    shown = ", ".join(
        f"{name} = {joint}" for name, joint in landmarks.items() if isinstance(joint, str)
    )
    return Layout.from_dict(fields, layout.name), (
        f"layout {layout.name} has no [landmarks]; by the names of its joints they are taken to "
        f"be {shown}; if one is wrong, give them in the layout's file"
    )


def proposed_landmarks(layout: Layout) -> dict[str, str | dict[str, float]]:
    """Landmark -> the joint whose name says that it is there; between the hips, weights over both.

    Raises InputError where the names do not tell hips, knees, ankles, shoulders, elbows and wrists
    of both sides, all of which have to be known.
    """
    words: dict[tuple[str, str], str] = {}
    for joint in layout.joints:
        words.setdefault(_side_and_word(joint, layout), joint)
    limbs = _limb_names({word for side, word in words if side})
    found: dict[str, str] = {}
    for side in "lr":
        taken: set[str] = set()
        for limb, names in limbs.items():
            joint = _first(words, side, names, taken)
            if joint is not None:
                found[side + limb] = joint
                taken.add(joint)
    for landmark, names in _MIDDLE.items():
        joint = _first(words, "", names, set(found.values()))
        if joint is not None:
            found[landmark] = joint
    if missing := [side + limb for limb in LIMBS for side in "lr" if side + limb not in found]:
        raise InputError(
            f"layout {layout.name} has no [landmarks], and the names of its joints do not tell "
            f"{', '.join(missing)}; add a table [landmarks] to its file, a joint for each "
            "(docs/layouts.md)"
        )
    middle = {found[hip]: share for hip, share in _MID_HIP.items()}
    return {**found, "mid_hip": middle}


def _limb_names(words: set[str]) -> Mapping[str, Sequence[str]]:
    """Landmark of a limb -> its names in a layout whose sided joints have these words."""
    limbs = dict(_LIMBS)
    # Where joints are called after the bone that they begin, as in BVH files and game engines.
    if words & {"upleg", "upperleg", "thigh"}:
        limbs["knee"] = (*limbs["knee"], "leg")
    arms = [word for word in ("upperarm", "uparm", "arm") if word in words]
    if arms and "shoulder" in words:
        limbs["shoulder"] = tuple(arms)
        limbs["clavicle"] = (*limbs["clavicle"], "shoulder")
    elif "forearm" in words or "lowerarm" in words:
        limbs["shoulder"] = (*limbs["shoulder"], "arm")
    for joint, bone in (("ankle", "foot"), ("wrist", "hand")):  # a foot without an ankle is one
        if not words & set(limbs[joint]):
            end = {"ankle": "ball", "wrist": "hand"}[joint]
            limbs[joint] = (*limbs[joint], bone, bone[:3])
            limbs[end] = tuple(name for name in limbs[end] if name not in (bone, bone[:3]))
    return limbs


def _first(
    words: Mapping[tuple[str, str], str], side: str, names: Sequence[str], taken: set[str]
) -> str | None:
    for name in names:
        joint = words.get((side, name))
        if joint is not None and joint not in taken:
            return joint
    return None


def _side_and_word(joint: str, layout: Layout) -> tuple[str, str]:
    """ "mixamorig:LeftUpLeg" is ("l", "upleg"); "HipCenter" is ("", "hipcenter")."""
    name = joint.rpartition(":")[2]
    parts = [part.lower() for part in _PART.findall(name)]
    side = next((_SIDES[part] for part in parts if part in _SIDES), "")
    if side:
        parts.remove(next(part for part in parts if part in _SIDES))
    elif mirrored := _side_of_pair(joint, layout):
        side, parts = mirrored, [part.lower() for part in _PART.findall(name[1:])]
    return side, "".join(parts)


def _side_of_pair(joint: str, layout: Layout) -> str:
    """The side of "lhip", whose letter is no part of its own, where "rhip" is its partner."""
    for left, right in layout.mirror_pairs:
        if (
            joint in (left, right)
            and left[1:] == right[1:]
            and (left[0] + right[0]).lower() == "lr"
        ):
            return "l" if joint == left else "r"
    return ""
