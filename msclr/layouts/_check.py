"""What a layout may hold. Each function returns its value in canonical form or raises InputError.

Messages start with the key they are about; the callers put the layout and the file in front.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from reprlib import repr as short
from typing import Any

from msclr.errors import InputError

MAX_JOINTS = 128  # the kernels' limit

Pair = tuple[str, str]
Rules = tuple[tuple[str, tuple[tuple[str, float], ...]], ...]  # (name, ((of what, weight), …)), …


def did_you_mean(word: Any, names: Iterable[str]) -> str:
    """`; did you mean 'lhip'?` where a name is near to `word`, upper and lower case alike."""
    names = {name.lower(): name for name in names}
    near = get_close_matches(word.lower(), names, n=1) if isinstance(word, str) else []
    return f"; did you mean {names[near[0]]!r}?" if near else ""


def keys(
    fields: Mapping[str, Any], required: Sequence[str], optional: Sequence[str], source: str
) -> None:
    if not isinstance(fields, Mapping):
        raise InputError(f"{source}: wanted a table of keys, got {short(fields)}")
    allowed = (*required, *optional)
    for key in fields:
        if key not in allowed:
            raise InputError(
                f"{source}: unknown key {key!r}, wanted {', '.join(allowed)}"
                f"{did_you_mean(key, allowed)}"
            )
    for key in required:
        if key not in fields:
            raise InputError(f"{source}: the key {key!r} is missing; add it")


def name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9_]+", value):
        raise InputError(
            f"name: {short(value)} is no layout name; use lower-case letters, digits and _ only"
        )
    return value


def aliases(values: Any, name: str) -> tuple[str, ...]:
    _require_list("aliases", values, 'of names such as ["my-robot"]')
    taken = {name}
    for alias in values:
        if not isinstance(alias, str) or not re.fullmatch(r"[A-Za-z0-9_.+-]+", alias):
            raise InputError(
                f"aliases: {short(alias)} is no alias; use letters, digits and _ . + - only"
            )
        if alias.lower() in taken:
            raise InputError(f"aliases: {alias!r} repeats a name of the layout; remove it")
        taken.add(alias.lower())
    return tuple(values)


def joints(values: Any) -> tuple[str, ...]:
    _require_list("joints", values, 'of names such as ["hip", "knee"]')
    if not 1 <= len(values) <= MAX_JOINTS:
        raise InputError(f"joints: got {len(values)}, wanted 1 to {MAX_JOINTS} names")
    first_seen: dict[str, int] = {}
    for i, joint in enumerate(values):
        if not isinstance(joint, str) or not joint.strip():
            raise InputError(f"joints: entry {i} is {short(joint)}; wanted a name in quotes")
        if joint in first_seen:
            raise InputError(
                f"joints: {joint!r} is both entry {first_seen[joint]} and entry {i}; "
                "give each joint a name of its own"
            )
        first_seen[joint] = i
    return tuple(values)


def center(value: Any, joints: Sequence[str]) -> str:
    if value not in joints:
        raise InputError(
            f"center: {short(value)} is not among the joints{did_you_mean(value, joints)}"
        )
    return value


def bones(values: Any, joints: Sequence[str]) -> tuple[Pair, ...]:
    bones = _pairs("bones", values, joints, '["child", "parent"]')
    first_seen: dict[frozenset[str], int] = {}
    for i, bone in enumerate(bones):
        entry = first_seen.setdefault(frozenset(bone), i)
        if entry != i:
            raise InputError(
                f"bones: entries {entry} and {i} both connect {bone[0]!r} and {bone[1]!r}; "
                "remove one"
            )
    _refuse_circles(bones)
    return bones


def flip(values: Any, joints: Sequence[str]) -> tuple[Pair, ...]:
    pairs = _pairs("flip", values, joints, '["left", "right"]')
    seen: set[str] = set()
    for i, pair in enumerate(pairs):
        for joint in pair:
            if joint in seen:
                raise InputError(
                    f"flip: entry {i} {list(pair)} pairs {joint!r} a second time; "
                    "a joint has one mirror partner"
                )
            seen.add(joint)
    return pairs


def outside_graph(values: Any, bones: Sequence[Pair], joints: Sequence[str]) -> tuple[Pair, ...]:
    outside = _pairs("outside_graph", values, joints, '["child", "parent"]')
    for i, bone in enumerate(outside):
        if bone not in bones:
            raise InputError(
                f"outside_graph: entry {i} {list(bone)} is not among the bones; "
                "list it there too, child first"
            )
    if len(set(outside)) < len(outside):
        raise InputError("outside_graph: a bone is listed twice; remove one")
    return outside


def rules(landmarks: Any, derived: Any, joints: Sequence[str]) -> tuple[Rules, Rules]:
    """(landmark over joints, joint over landmarks), each landmark and joint at most once.

    A landmark that is given as a joint is a rule for that joint too, unless `derived` has another.
    """
    over_joints, over_landmarks = {}, {}
    for landmark, value in _table("landmarks", landmarks).items():
        weights = over_joints[landmark] = _weights(f"landmarks: {landmark}", value)
        for joint, _ in weights:
            if joint not in joints:
                raise InputError(
                    f"landmarks: {landmark} names {joint!r}, which is not among the joints"
                    f"{did_you_mean(joint, joints)}"
                )
        if isinstance(value, str):
            over_landmarks.setdefault(value, ((landmark, 1.0),))
    for joint, value in _table("derived", derived).items():
        if joint not in joints:
            raise InputError(
                f"derived: {joint!r} is not among the joints{did_you_mean(joint, joints)}"
            )
        over_landmarks[joint] = _weights(f"derived: {joint}", value)
    return tuple(over_joints.items()), tuple(over_landmarks.items())


def _table(key: str, values: Any) -> Mapping[str, Any]:
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise InputError(f"{key}: got {short(values)}, wanted a table such as mid = {{ a = 1.0 }}")
    return values


def _weights(key: str, value: Any) -> tuple[tuple[str, float], ...]:
    if isinstance(value, str):
        return ((value, 1.0),)
    if not isinstance(value, Mapping) or not value:
        raise InputError(
            f"{key} is {short(value)}; wanted a name, or weights such as {{ a = 0.5, b = 0.5 }}"
        )
    for name, weight in value.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not isinstance(name, str) or not number or not math.isfinite(weight):
            raise InputError(f"{key} weighs {short(name)} by {short(weight)}; wanted a number")
    total = math.fsum(value.values())
    if abs(total - 1) > 1e-9:
        raise InputError(f"{key} has weights that sum to {total:.9g}; they must sum to 1")
    return tuple((name, float(weight)) for name, weight in value.items())


def _require_list(key: str, values: Any, wanted: str) -> None:
    if not isinstance(values, list | tuple):
        raise InputError(f"{key}: got {short(values)}, wanted a list {wanted}")


def _pairs(key: str, values: Any, joints: Sequence[str], form: str) -> tuple[Pair, ...]:
    """`values` as pairs of two different known joints."""
    _require_list(key, values, f"of pairs {form}")
    known = set(joints)
    for i, pair in enumerate(values):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise InputError(f"{key}: entry {i} is {short(pair)}; wanted a pair {form}")
        for joint in pair:
            if not isinstance(joint, str) or joint not in known:
                raise InputError(
                    f"{key}: entry {i} {list(pair)} names {short(joint)}, which is not among the "
                    f"joints{did_you_mean(joint, joints)}"
                )
        if pair[0] == pair[1]:
            raise InputError(
                f"{key}: entry {i} pairs {pair[0]!r} with itself; name two joints or remove it"
            )
    return tuple((first, second) for first, second in values)


def _refuse_circles(bones: Sequence[Pair]) -> None:
    """Going from parent to parent must end: the bone stream needs a root."""
    parents = dict(reversed(bones))  # reversed: a joint's first bone wins, as in Layout.parents
    for start, _ in bones:
        chain = [start]
        while chain[-1] in parents:
            chain.append(parents[chain[-1]])
            if chain[-1] in chain[:-1]:
                circle = " > ".join(chain[chain.index(chain[-1]) :])
                raise InputError(
                    f"bones: the parents run in a circle, {circle}; write each bone as "
                    '["child", "parent"], the parent nearer to the centre'
                )
