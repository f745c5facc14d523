"""Which layout another one is best made into, and what is lost on the way.

Where `derivation` refuses a layout because the source lacks one of its landmarks, the nearest place
is taken here, and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from msclr.errors import InputError
from msclr.layouts.fills import Fill, fills_of
from msclr.layouts.layout import Layout

if TYPE_CHECKING:
    import numpy as np

_SHOWN = 4  # fills that a line names


@dataclass(frozen=True, eq=False)
class Passage:
    """How the joints of `target` are made of those of `source`.

    matrix: (V_target, V_source) float64 whose rows sum to 1, for `derive_joints`.
    filled: joint of the target -> what replaces it, and in how many steps (see `fills_of`).
    unused: the joints of the source that nothing is made of.
    """

    source: Layout
    target: Layout
    matrix: np.ndarray
    filled: Mapping[str, tuple[str, int]]
    unused: tuple[str, ...]

    @property
    def loss(self) -> float:
        """Steps of filling for each joint of the target, plus the share of the source's joints
        that are not used: 0 where the two are the same joints."""
        steps = sum(steps for _, steps in self.filled.values())
        return steps / self.target.num_joints + len(self.unused) / self.source.num_joints

    @cached_property
    def line(self) -> str:
        """What is lost, in a line."""
        parts = [f"loss {self.loss:.2f}"]
        if self.filled:
            some = [f"{joint} from {near}" for joint, (near, _) in self.filled.items()]
            more = f" and {len(some) - _SHOWN} more" if len(some) > _SHOWN else ""
            count = f"{len(some)} of {self.target.num_joints} joints filled"
            parts.append(f"{count} ({', '.join(some[:_SHOWN])}{more})")
        if self.unused:
            parts.append(f"{len(self.unused)} of {self.source.num_joints} joints not used")
        return f"{self.source.name} derived to {self.target.name}: {', '.join(parts)}"

    def __str__(self) -> str:
        return self.line


def passage(source: Layout, target: Layout) -> Passage:
    """The joints of `target` made of those of `source`, filling what the source lacks.

    A landmark that the source lacks is taken from the nearest it has (docs/layouts.md). A joint of
    the target without a rule, such as a marker on the skin, takes the place of the landmark that it
    has most of the weight of; failing that, of the nearest joint along its bones that has a place.

    Raises InputError where the source has no landmarks, or nothing of the target follows from
    them.
    """
    import numpy as np

    if source == target:
        return Passage(source, target, np.eye(source.num_joints), {}, ())
    if not source.landmarks:
        raise InputError(
            f"layout {source.name} has no [landmarks], so no other layout can be derived from it; "
            "add them to its file (docs/layouts.md)"
        )
    landmarks = fills_of(dict(source.landmarks))
    rows: dict[str, np.ndarray] = {}
    filled: dict[str, tuple[str, int]] = {}
    rules = dict(target.derived)
    rough = {joint: ((name, 1.0),) for joint, name in _mostly(target).items() if joint not in rules}
    for joint, rule in {**rules, **rough}.items():
        if all(name in landmarks for name, _ in rule):
            rows[joint] = _row(rule, source, landmarks)
            name, fill = max(
                ((name, landmarks[name]) for name, _ in rule), key=lambda one: one[1].steps
            )
            if steps := fill.steps + (joint in rough):
                filled[joint] = " and ".join(fill.near) or name, steps
    if not rows:
        raise InputError(f"no joint of {target.name} can be derived from {source.name}")
    for joint in target.joints:
        if joint not in rows:
            near, hops = nearest_joint(target, joint, rows)
            filled[joint] = near, hops + filled.get(near, ("", 0))[1]
    made = {joint: rows[joint if joint in rows else filled[joint][0]] for joint in target.joints}
    matrix = np.stack([made[joint] for joint in target.joints])
    used = (matrix != 0).any(axis=0)
    unused = tuple(joint for joint, use in zip(source.joints, used, strict=True) if not use)
    ordered = {joint: filled[joint] for joint in target.joints if joint in filled}
    return Passage(source, target, matrix, ordered, unused)


def closest(source: Layout, targets: Iterable[Layout]) -> Passage:
    """The passage of least loss from `source` to one of `targets`, the first of equal ones.

    Raises InputError where there is none.
    """
    found, reason = [], None
    for target in targets:
        try:
            found.append(passage(source, target))
        except InputError as error:
            reason = reason or error
    if not found:
        raise reason or InputError("there is no layout to derive to; name one or more")
    return min(found, key=lambda one: one.loss)


def _mostly(layout: Layout) -> dict[str, str]:
    """Joint -> the landmark that it has at least half of the weight of, the first of several."""
    found: dict[str, str] = {}
    for landmark, weights in layout.landmarks:
        for joint, weight in weights:
            if 0.5 <= weight <= 1:
                found.setdefault(joint, landmark)
    return found


def _row(rule, source: Layout, landmarks: Mapping[str, Fill]) -> np.ndarray:
    """The weights (V_source,) of a rule over landmarks."""
    import numpy as np

    place = {joint: v for v, joint in enumerate(source.joints)}
    offered = dict(source.landmarks)
    row = np.zeros(source.num_joints)
    for name, share in rule:
        for landmark, part in landmarks[name].weights.items():
            for joint, weight in offered[landmark]:
                row[place[joint]] += share * part * weight
    return row


def nearest_joint(layout: Layout, joint: str, having: Mapping[str, object]) -> tuple[str, int]:
    """The nearest joint along the bones that is in `having`, and how many bones away; of joints
    that no bones join to one, the first in `having`, as far away as all bones are long."""
    links: dict[str, list[str]] = {name: [] for name in layout.joints}
    for child, parent in layout.bones:
        links[child].insert(0, parent)  # the parent before children: nearer to the centre
        links[parent].append(child)
    reached, hops = [joint], {joint: 0}
    for name in reached:  # which grows while it is read
        if name in having:
            return name, hops[name]
        for other in links[name]:
            if other not in hops:
                hops[other] = hops[name] + 1
                reached.append(other)
    return next(iter(having)), layout.num_joints
