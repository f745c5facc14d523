"""How clips of a layout that an encoder does not know get their features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from msclr.data.derive import derive_clips
from msclr.encoder.features import BATCH, encode
from msclr.errors import InputError
from msclr.layouts import Layout
from msclr.layouts.passages import Passage, closest
from msclr.layouts.propose import with_landmarks
from msclr.nn import STGCN

ROUTES = ("auto", "derive", "attach", "both")


@dataclass(frozen=True)
class Route:
    """The way from a layout's clips to features.

    kind: "known", the encoder was trained on the layout; "derive", the clips are made into the
        known layout that loses least; "attach", the layout gets its own input norm, fitted
        on the clips, and the edge importance of its counterparts; "both", the mean of the two.
    layout: of the clips, with landmarks.
    passage: to the known layout that loses least; None where the layout itself is known.
    notes: what the user should know, such as landmarks read from joint names.
    mirror: whether features are the mean of those of each clip and of its mirror image.
    """

    kind: str
    layout: Layout
    passage: Passage | None = None
    notes: tuple[str, ...] = ()
    mirror: bool = False

    @property
    def line(self) -> str:
        """The route and what is lost on it, in a line."""
        if self.passage is None:
            return f"{self.layout.name}: the encoder knows this layout"
        where = {
            "derive": "route derive",
            "attach": f"route attach, with the edge importance of {self.passage.target.name}",
            "both": "route both, the mean of derived and attached",
        }[self.kind]
        return f"{where}: {self.passage.line}"

    def __str__(self) -> str:
        return self.line


def choose_route(
    known: Mapping[str, Layout], layout: Layout, route: str = "auto", mirror: bool = False
) -> Route:
    """The route from `layout` to an encoder that was trained on the layouts `known`.

    Raises InputError for a route that is not known, for other joints under a known name, for a
    layout whose landmarks cannot be found, and to mirror one whose left and right are not known.
    """
    if mirror:
        _check_sides(layout)
        return replace(choose_route(known, layout, route), mirror=True)
    check_route(route)
    if layout.name in known:
        theirs = known[layout.name]
        if layout.joints != theirs.joints:
            raise InputError(
                f"layout {layout.name} of {layout.num_joints} joints is not the one of "
                f"{theirs.num_joints} joints that the encoder knows; rename yours"
            )
        return Route("known", theirs)
    source, note = with_landmarks(layout)
    targets = []
    for target in known.values():
        try:
            targets.append(with_landmarks(target)[0])
        except InputError:
            continue  # such a layout can still be attached to, if another has landmarks
    if not targets:
        raise InputError(
            f"the landmarks of {', '.join(known)}, which the encoder knows, cannot be told, so "
            f"{layout.name} has no route to it; register that layout with [landmarks] "
            "(docs/layouts.md)"
        )
    passage = closest(source, targets)
    kind = "derive" if route == "auto" else route
    return Route(kind, source, passage, (note,) if note else ())


def _check_sides(layout: Layout) -> None:
    if not layout.mirror_pairs:
        raise InputError(
            f"layout {layout.name} has no left-right pairs of joints, without which there is no "
            'mirror image; add flip = [["left joint", "right joint"], …] to its file'
        )


def check_route(route: str) -> str:
    if route not in ROUTES:
        raise InputError(f"route is {route!r}; choose one of {', '.join(ROUTES)}")
    return route


def features_by(
    route: Route,
    encoder: STGCN,
    x: Tensor,
    bodies: Tensor,
    stream: str,
    *,
    planar: bool = False,
    centred: bool = True,
) -> Tensor:
    """Features (N, D) float32 of prepared clips x (N, M, T, V, 3), bodies (N, M) bool.

    centred: whether the layout's centre joint is at 0 in each frame. A layout that is attached must
    have been by :func:`fit`.
    """
    if route.mirror:
        route, how = replace(route, mirror=False), {"planar": planar, "centred": centred}
        images = mirrored(x, route.layout)
        plain, image = (features_by(route, encoder, y, bodies, stream, **how) for y in (x, images))
        return (plain + image) / 2
    parts = []
    if route.kind == "known" or route.kind in ("attach", "both"):
        parts.append(encode(encoder, x, bodies, route.layout.name, stream, planar))
    if route.kind in ("derive", "both"):
        made = derived(route.passage, x, bodies, planar, centred)
        parts.append(encode(encoder, made, bodies, route.passage.target.name, stream, planar))
    return parts[0] if len(parts) == 1 else (parts[0] + parts[1]) / 2


def mirrored(x: Tensor, layout: Layout) -> Tensor:
    """The mirror images of clips x (..., V, 3): x is negated, left and right joints change places.

    Of a body in its own frame x is its left; along another axis the image is the same, turned.
    """
    return x[..., layout.flip.to(x.device), :] * x.new_tensor([-1.0, 1.0, 1.0])


def derived(passage: Passage, x: Tensor, bodies: Tensor, planar: bool, centred: bool) -> Tensor:
    """Prepared clips x (N, M, T, V, 3) under the target of a passage, (N, M, T, V', 3) float32.

    A joint that is 0 in each frame was never seen, and so is what needs it; but for the centre
    joint, which is at 0.
    """
    center = passage.target.center_index if centred and not planar else None
    made = []
    for clips, present in zip(x.cpu().split(BATCH), bodies.cpu().split(BATCH), strict=True):
        xyz = clips.numpy()
        ever = (xyz != 0).any(axis=(2, 4))  # (B, M, V)
        if center is not None:
            ever[..., passage.source.center_index] |= present.numpy()
        made.append(derive_clips(passage.matrix, xyz, ever, center, planar).astype(np.float32))
    shape = (*x.shape[:3], passage.target.num_joints, 3)
    found = np.concatenate(made) if made else np.empty(shape, np.float32)
    return torch.from_numpy(found).to(x.device)
