"""What replaces a landmark that a layout lacks: the nearest that it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

Weights = Mapping[str, float]


def _both_sides(rules: Mapping[str, tuple[Weights, ...]]) -> dict[str, tuple[Weights, ...]]:
    """The rules with each "*" read as l, and as r."""
    sided: dict[str, tuple[Weights, ...]] = {}
    for landmark, several in rules.items():
        for side in "lr" if "*" in landmark else ("",):
            sided[landmark.replace("*", side)] = tuple(
                {
                    name.replace("*", side).replace("~", "rl"["lr".find(side)]): weight
                    for name, weight in weights.items()
                }
                for weights in several
            )
    return sided


def _between(height: float) -> Weights:
    """A place on the trunk, between the hips (0) and the base of the neck (1)."""
    return {"mid_hip": 1 - height, "neck_base": height}


# * is l or r, ~ the other side. Of several entries that can be had the one of the fewest steps is
# taken, then the first.
FILLS = _both_sides(
    {
        "*fingertip": ({"*hand": 1},),
        "*thumb": ({"*hand": 1},),
        "*hand": ({"*fingertip": 1}, {"*wrist": 1}),
        "*wrist": ({"*hand": 1},),
        "*elbow": ({"*shoulder": 0.5, "*wrist": 0.5},),
        "*toe": ({"*ball": 1},),
        "*ball": ({"*toe": 1}, {"*ankle": 1}),
        "*heel": ({"*ankle": 1},),
        "*ankle": ({"*heel": 1}, {"*ball": 1}),
        "*knee": ({"*hip": 0.5, "*ankle": 0.5},),
        "*hip": ({"mid_hip": 2, "~hip": -1}, {"mid_hip": 1}),
        "*shoulder": ({"neck_base": 2, "~shoulder": -1}, {"*clavicle": 1}),
        "*clavicle": ({"neck_base": 0.5, "*shoulder": 0.5},),
        "*eye": ({"nose": 1}, {"head": 1}),
        "*ear": ({"head": 1},),
        "nose": ({"leye": 0.5, "reye": 0.5}, {"head": 1}),
        "head": ({"lear": 0.5, "rear": 0.5}, {"head_top": 1}, {"nose": 1}, {"head_base": 1}),
        "head_top": ({"head": 1},),
        "head_base": ({"neck": 0.78, "head": 0.22}, {"head": 1}),
        "neck": ({"neck_base": 0.69, "head": 0.31}, {"neck_base": 1}),
        "neck_base": ({"lshoulder": 0.5, "rshoulder": 0.5}, {"neck": 1}),
        "chest": (_between(0.65),),
        "spine_mid": (_between(0.56),),
        "lumbar": (_between(0.33),),
        "pelvis": (_between(0.15),),
        "mid_hip": ({"lhip": 0.5, "rhip": 0.5}, {"pelvis": 1}),
    }
)


class Fill(NamedTuple):
    """How a landmark is made of known ones.

    weights: over known landmarks. steps: how many fills lead there. near: the landmarks of the
    first of them, for the reader.
    """

    weights: dict[str, float]
    steps: int
    near: tuple[str, ...]


def fills_of(known: Iterable[str]) -> dict[str, Fill]:
    """Every landmark that follows from these known ones, and how; those themselves in 0 steps."""
    found = {name: Fill({name: 1.0}, 0, ()) for name in known}
    limit = len(FILLS)
    for steps in range(1, limit + 1):
        new = {
            landmark: fill
            for landmark in FILLS.keys() - found.keys()
            if (fill := _fill(landmark, found, steps)) is not None
        }
        if not new:
            break
        found |= new
    return found


def _fill(landmark: str, found: Mapping[str, Fill], steps: int) -> Fill | None:
    for rule in FILLS[landmark]:
        if all(name in found for name in rule):
            weights: dict[str, float] = {}
            for name, share in rule.items():
                for other, weight in found[name].weights.items():
                    weights[other] = weights.get(other, 0.0) + share * weight
            return Fill(weights, steps, tuple(rule))
    return None
