"""Clips as an encoder's training data were prepared."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msclr.data.prepare._place import Placement
from msclr.data.prepare._raw import RawClips
from msclr.data.prepare.clean import Rules
from msclr.data.size import body_size
from msclr.data.skeleton.frame import Landmarks
from msclr.data.store import Store
from msclr.encoder.upright import stand_up
from msclr.errors import InputError
from msclr.layouts import Layout

_TO_PYSKL = np.array([[-1.0, 0, 0], [0, 0, 1], [0, 1, 0]])  # from left, up, forward
_UNLIKE = 10.0  # bodies of two data sets differ by a small factor, units by a hundred

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preparation:
    """The steps of `msclr.data.prepare_arrays` and their constants.

    frames: T of the prepared clips. bodies: how many of a clip's are kept, the most moving.
    frame, size_by, coordinates: as `frame`, `size` and `coordinates` of `prepare_arrays`.
    upright: whether clips in which another axis than y points up are turned until y does.
    pyskl: of the frame "body", to have x to the right, y forward and z up, about the middle of the
        main body's spine in the first frame.
    extent: the usual size of a body in metres (`body_size`), or None where it is not known; clips
        whose bodies are ten times as large or small are in another unit.
    bodies_by_layout: where data sets of several layouts had room for unlike numbers of bodies.
    """

    frames: int
    bodies: int
    frame: str = "camera"
    size_by: str = "none"
    coordinates: str = "xyz"
    upright: bool = False
    pyskl: bool = False
    extent: float | None = None
    bodies_by_layout: Mapping[str, int] = field(default_factory=dict)

    def of(self, layout: str) -> Preparation:
        """That of clips under one layout."""
        return replace(self, bodies=self.bodies_by_layout.get(layout, self.bodies))

    @property
    def planar(self) -> bool:
        return self.coordinates == "xy_score"

    @property
    def centred(self) -> bool:
        """Whether the layout's centre joint is at 0 in each frame."""
        return Placement(self.frame, self.size_by).centred

    def like(self, store: Store) -> bool:
        """Whether the clips of a prepared data set are prepared so already."""
        mine = (self.frames, self.frame, self.size_by, self.coordinates)
        theirs = (store.frames, store.frame, store.size_by, store.coordinates)
        return mine == theirs and not self.pyskl

    def prepare(self, clips: Sequence[np.ndarray], layout: Layout) -> tuple[Tensor, Tensor]:
        """Checked clips, (T, V, 3) or (M, T, V, 3), as (N, M, T, V, 3) float32, and (N, M) bool:
        which bodies are there.

        A clip is prepared as it would be alone, but for what the clips share: which axis points
        up, and whether their centre joint, at 0 throughout, is measured or missing.

        Raises InputError for a clip without a joint, and for bodies of another size.
        """
        if not self.planar:
            self._check_unit(clips)
            if self.upright:
                clips = stand_up(clips, layout)
        raw = RawClips(layout, clips, self.coordinates)
        rules = Rules(self.frames, self._placement, planar=self.planar)
        present = [_present(raw, clip) for clip in range(len(clips))]
        x = np.zeros((len(clips), self.bodies, self.frames, layout.num_joints, 3), np.float32)
        bodies = np.zeros(x.shape[:2], bool)
        lacking: dict[int, str] = {}
        for clip, rows in enumerate(present):
            rows = self._kept(raw, clip, rows)
            main = self._main(raw, clip, rows)
            made = raw.clean(clip, rows, rules, main)
            xyz = _as_pyskl(made.xyz, made.ever, layout, main) if self.pyskl else made.xyz
            x[clip, : len(rows)], bodies[clip, : len(rows)] = xyz, True
            if made.frame.lacking:
                lacking[clip] = made.frame.lacking
        if not np.isfinite(x).all():
            raise InputError("the clips have coordinates too large for float32; give metres")
        _warn_of(lacking, len(clips))
        return torch.from_numpy(x + 0), torch.from_numpy(bodies)  # no negative zeros

    @property
    def _placement(self) -> Placement:
        return Placement(self.frame, self.size_by)

    def _kept(self, raw: RawClips, clip: int, rows: np.ndarray) -> np.ndarray:
        if len(rows) <= self.bodies:
            return rows
        order = np.argsort(-raw.motion(clip, rows), kind="stable")
        return rows[np.sort(order[: self.bodies])]

    def _main(self, raw: RawClips, clip: int, rows: np.ndarray) -> int:
        if len(rows) < 2 or not self._placement.follows_main:
            return 0
        return int(np.argmax(raw.motion(clip, rows)))

    def _check_unit(self, clips: Sequence[np.ndarray]) -> None:
        size = body_size(clips) if self.extent else None
        if size and not 1 / _UNLIKE <= size / self.extent <= _UNLIKE:
            raise InputError(
                f"the bodies of the clips measure {size:.3g}, those that the encoder was trained "
                f"on {self.extent:.3g} metres: another unit; give metres"
            )


def check_clips(clips: Any, layout: Layout, coordinates: str = "xyz") -> list[np.ndarray]:
    """The clips as a list of arrays (T, V, 3) or (M, T, V, 3), each with a frame and a joint.

    clips: one such array, or several in a list, a tuple or an array (N, M, T, V, 3).
    """
    several = isinstance(clips, (list, tuple)) or np.ndim(clips) == 5
    found = [_as_array(clip, i, several) for i, clip in enumerate(clips if several else [clips])]
    for number, clip in enumerate(found):
        where = f"clip {number}" if several else "the clip"
        if clip.ndim not in (3, 4) or clip.shape[-1] != 3:
            _refuse_shape(clip, where, coordinates)
        if clip.shape[-2] != layout.num_joints:
            raise InputError(
                f"{where} has {clip.shape[-2]} joints, layout {layout.name} has "
                f"{layout.num_joints}; name the layout that the clips were made with"
            )
        if not clip.size:
            raise InputError(f"{where} has no frame (shape {clip.shape}); leave it out")
    return found


def _as_array(clip: Any, number: int, several: bool) -> np.ndarray:
    where = f"clip {number}" if several else "the clip"
    if torch.is_tensor(clip):
        clip = clip.detach().cpu().numpy()
    try:
        array = np.asarray(clip)
    except ValueError as error:  # rows of unlike length
        raise InputError(f"{where} is no array ({error}); wanted (T, V, 3)") from None
    if array.dtype.kind not in "iuf":
        raise InputError(f"{where} holds {array.dtype}; give integers or floating-point numbers")
    return array


def _refuse_shape(clip: np.ndarray, where: str, coordinates: str) -> None:
    if clip.ndim in (3, 4) and clip.shape[-1] == 2:
        wanted = "x, y and z in metres" if coordinates == "xyz" else "x, y and a score"
        raise InputError(
            f"{where} has joints of 2 coordinates (shape {clip.shape}), the encoder takes {wanted}"
        )
    raise InputError(f"{where} has shape {clip.shape}; wanted (T, V, 3) or (M, T, V, 3)")


def _present(raw: RawClips, clip: int) -> np.ndarray:
    rows = np.nonzero(raw.present(clip))[0]
    if not len(rows):
        raise InputError(f"clip {clip} has no joint: all are NaN or 0; leave it out")
    return rows


def _as_pyskl(xyz: np.ndarray, ever: np.ndarray, layout: Layout, main: int) -> np.ndarray:
    """A clip (B, T, V, 3) of the frame "body" in pyskl's; `ever` (B, V), which joints are seen."""
    place = Landmarks(xyz[main], np.broadcast_to(ever[main], xyz.shape[1:3]), layout)
    origin = np.nan_to_num(place.place({"mid_hip": 0.44, "neck_base": 0.56})[0])  # of the spine
    return ((xyz - origin) @ _TO_PYSKL.T) * ever[:, None, :, None]


def _warn_of(lacking: dict[int, str], count: int) -> None:
    if lacking:
        clip, what = next(iter(lacking.items()))
        logger.warning(
            "%s of %s clips keep the axes that they came with, since their body's frame cannot be "
            "told, as of clip %s: %s not seen", len(lacking), count, clip, what,
        )  # fmt: skip
