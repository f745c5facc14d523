"""Views computed from other views of a data set, by the landmarks of their layouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from msclr import layouts as layout_registry
from msclr.data.skeleton.frame import off_zero
from msclr.errors import InputError
from msclr.layouts.derive import derivation
from msclr.layouts.layout import Layout


class Derivation(NamedTuple):
    """How the joints of `target` follow from those of the layout called `source`."""

    source: str
    target: Layout
    matrix: np.ndarray  # (V_target, V_source) float64


def derivations(
    targets: Sequence[str | Layout], sources: Mapping[str, Layout]
) -> dict[str, Derivation]:
    """Target -> how it is derived from the first of `sources` that it can be derived from.

    Raises InputError that says why where it can be derived from none, and for a layout that is
    there already or is asked for twice.
    """
    found: dict[str, Derivation] = {}
    for key in targets:
        target = key if isinstance(key, Layout) else layout_registry.get(key)
        if target.name in sources or target.name in found:
            raise InputError(
                f"a layout is asked for twice: derive names {target.name}, which is there already; "
                "leave it out of derive"
            )
        found[target.name] = _derivation(target, sources)
    return found


def _derivation(target: Layout, sources: Mapping[str, Layout]) -> Derivation:
    reasons = []
    for name, source in sources.items():
        source = _with_landmarks(source)
        try:
            return Derivation(name, target, derivation(source, target))
        except InputError as error:
            reasons.append(str(error))
    raise InputError(" -- ".join(reasons))


def _with_landmarks(layout: Layout) -> Layout:
    """Data sets keep layouts without landmarks; the registered layout has them."""
    known = layout_registry.get(layout.name) if layout.name in layout_registry.names() else layout
    return known if known.joints == layout.joints else layout


def derive_clips(
    matrix: np.ndarray,
    xyz: np.ndarray,
    ever: np.ndarray,
    center: int | None,
    planar: bool = False,
) -> np.ndarray:
    """Clips (..., M, T, V, 3) under the layout of `matrix` (V', V): (..., M, T, V', 3) float64.

    ever: (..., M, V) bool, which joints are seen at all. A joint that needs another comes out as 0.
    center: the joint of the target that is subtracted in each frame, or None for clips that are not
        centred. Where it is not seen itself, the mean of the joints that are takes its place.
    planar: joints are x, y and a score: a derived one has the least score of those that make it.
    """
    used = matrix != 0
    without = ~ever @ used.T  # (..., M, V')
    derived = matrix @ np.where(ever[..., None, :, None], xyz, 0)  # (..., M, T, V', 3)
    if planar:
        for joint, of in enumerate(used):
            derived[..., joint, 2] = xyz[..., of, 2].min(axis=-1)
    elif center is not None:
        derived -= _origin(derived, ~without, center)
    else:
        off_zero(derived)
    derived *= ~without[..., None, :, None]
    return derived


def _origin(xyz: np.ndarray, ever: np.ndarray, center: int) -> np.ndarray:
    """What is subtracted of each body in each frame: (..., M, T, 1, 3)."""
    there = ever[..., None, :, None]  # (..., M, 1, V, 1)
    count = np.maximum(there.sum(axis=-2, keepdims=True), 1)
    mean = (xyz * there).sum(axis=-2, keepdims=True) / count
    return np.where(there[..., center : center + 1, :], xyz[..., center : center + 1, :], mean)
