"""One convention's joints from another's, by fixed weights.

Layouts meet at landmarks of the body: a layout's `landmarks` say where its joints put them, its
`derived` says where the landmarks put its joints. docs/layouts.md describes the landmarks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msclr.errors import InputError
from msclr.layouts.layout import Layout
from msclr.layouts.registry import get, names

if TYPE_CHECKING:
    import numpy as np


def derivation(source: Layout, target: Layout) -> np.ndarray:
    """The matrix that makes the joints of `target` of those of `source`.

    y[w] = sum_v matrix[w, v] x[v]: (V_target, V_source) float64 whose rows sum to 1, so that
    moving, turning and scaling the body does the same to what is derived. The identity where the
    two layouts are equal. `derive_joints` applies it to joints of which some are missing.

    Raises InputError that names the joints of `target` which cannot be had, and why.
    """
    import numpy as np

    if source == target:
        return np.eye(source.num_joints)
    reasons = _missing(source, target)
    if reasons:
        raise InputError(
            f"{target.name} cannot be derived from {source.name}: {'; '.join(reasons)}; "
            "docs/layouts.md shows what can"
        )
    place = {joint: v for v, joint in enumerate(source.joints)}
    offered, rules = dict(source.landmarks), dict(target.derived)
    matrix = np.zeros((target.num_joints, source.num_joints))
    for w, joint in enumerate(target.joints):
        for landmark, share in rules[joint]:
            for other, weight in offered[landmark]:
                matrix[w, place[other]] += share * weight
    return matrix


def derive_joints(xyz: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The joints (..., V_source, C) as (..., V_target, C) float64, `matrix` from `derivation`.

    A joint with a NaN among its coordinates is missing, and so is, all NaN, what needs it; joints
    of other sources are not touched by it. Turn zeros that mean missing joints into NaN first.
    """
    import numpy as np

    missing = np.isnan(xyz).any(axis=-1)  # (..., V_source)
    derived = matrix @ np.where(missing[..., None], 0.0, xyz)  # (..., V_target, C)
    if missing.any():
        derived[(missing @ (matrix != 0).T)] = np.nan
    return derived


def derivable(source: Layout) -> list[str]:
    """The names of all other registered layouts that can be derived from `source`, sorted."""
    return [name for name in names() if name != source.name and not _missing(source, get(name))]


def _missing(source: Layout, target: Layout) -> list[str]:
    """Why joints of `target` cannot be had from `source`, a reason per entry."""
    offered, rules = dict(source.landmarks), dict(target.derived)
    free = [joint for joint in target.joints if joint not in rules]
    reasons = [f"no rule for {', '.join(free)}"] if free else []
    wanting: dict[str, list[str]] = {}
    for joint in target.joints:
        for landmark, _ in rules.get(joint, ()):
            if landmark not in offered:
                wanting.setdefault(landmark, []).append(joint)
    for landmark, joints in wanting.items():
        reasons.append(f"{source.name} does not tell {landmark} (for {', '.join(joints)})")
    return reasons
