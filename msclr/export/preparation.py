"""`msclr.encoder.preparation` by operators of PyTorch alone, so that it can be part of a graph."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from msclr.encoder.preparation import _TO_PYSKL, _UNLIKE, Preparation
from msclr.encoder.upright import _turn_to_y
from msclr.export.frames import (
    BodyFrames,
    Frames,
    Places,
    first_seen,
    geometric_median,
    masked_median,
)
from msclr.layouts import Layout


class _Clips(NamedTuple):
    """Clips while they are prepared; what is not seen is 0."""

    xyz: Tensor  # (N, M, T, V, 3) float64
    seen: Tensor  # (N, M, T, V) bool
    kept: Tensor  # (N, M) bool, the bodies that the encoder is given
    main: Tensor  # (N, M) bool, one of them


class GraphPreparation(nn.Module):
    """Clips (N, M, T, V, 3) float32 as a sensor gives them -> x (N, M, frames, V, 3) float32,
    bodies (N, M) bool, those that are kept, and usable (N,) bool.

    A joint that is not finite or 0, 0, 0 is missing, a body without a joint absent. As
    :meth:`Preparation.prepare`, but that nothing is raised: a clip without a joint, one too large
    for float32 and clips in another unit are not usable, and what becomes of them means nothing.
    """

    def __init__(self, preparation: Preparation, layout: Layout) -> None:
        super().__init__()
        self.how, self.center = preparation, layout.center_index
        placement = preparation._placement
        self.finds_body, self.pyskl = placement.finds_body, preparation.pyskl
        finds = self.finds_body or preparation.upright
        self.frames_of = BodyFrames(layout) if finds else None
        rules = dict(layout.landmarks)
        pair = [{"lshoulder": 1.0}, {"rshoulder": 1.0}]
        turns = preparation.frame == "ntu" and {"lshoulder", "rshoulder"} <= rules.keys()
        self.shoulders = Places(layout, pair) if turns else None
        spine = {"mid_hip": 0.44, "neck_base": 0.56}
        spined = self.pyskl and spine.keys() <= rules.keys()
        self.spine = Places(layout, [spine]) if spined else None
        upright = [_turn_to_y(axis, sign) for axis in range(3) for sign in (1.0, -1.0)]
        upright[2] = torch.eye(3).double().numpy()  # y is up already
        turned = torch.stack([torch.as_tensor(turn) for turn in upright])
        self.register_buffer("upright", turned)  # (6, 3, 3), x, -x, y, -y, z and -z to y
        self.register_buffer("to_pyskl", torch.from_numpy(_TO_PYSKL))
        self.register_buffer("identity", torch.eye(3, dtype=torch.float64))

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        xyz = clips.double()
        seen = (xyz.abs() < math.inf).all(dim=-1)
        there = xyz[..., 2] > 0 if self.how.planar else (xyz != 0).any(dim=-1)
        seen = seen & there
        xyz = torch.where(seen.unsqueeze(-1), xyz, 0.0)
        usable = seen.flatten(1).any(dim=1)  # (N,)
        if self.how.extent:
            usable = usable & self._in_metres(xyz, seen)
        if self.how.upright:
            xyz = self._stand_up(xyz, seen)
        picked = self._pick(xyz, seen)
        first, last = self._window(picked.seen)
        filled = fill_gaps(picked.xyz, picked.seen)
        if self.how.planar:
            score = torch.where(picked.seen, picked.xyz[..., 2], 0.0)
            filled = torch.cat([filled[..., :2], score[..., None]], dim=-1)
        x = resample(filled, first, last, self.how.frames)
        if not self.how.planar:
            x = self._place(x, picked._replace(xyz=filled))
        x = torch.where(picked.kept[:, :, None, None, None], x, 0.0).float()
        usable = usable & (x.abs() < math.inf).flatten(1).all(dim=1)
        return x, picked.kept, usable

    def _in_metres(self, xyz: Tensor, seen: Tensor) -> Tensor:
        """Whether the bodies of the call are about as large as those of the training data, ()."""
        shown = seen.unsqueeze(-1)
        high = torch.where(shown, xyz, -math.inf).amax(dim=3)  # (N, M, T, 3)
        low = torch.where(shown, xyz, math.inf).amin(dim=3)
        some = seen.any(dim=3, keepdim=True)
        across = torch.where(some, high - low, 0.0)
        extent = (across * across).sum(dim=-1).sqrt().flatten(1)  # (N, M*T)
        of_clip = masked_median(extent, extent > 0)  # (N,)
        of_clip = torch.cat([of_clip, of_clip.new_zeros(1)])[None]  # also of a call of no clip
        size = masked_median(of_clip, of_clip > 0)  # (1,)
        low, high = self.how.extent / _UNLIKE, self.how.extent * _UNLIKE
        return (size == 0) | ((size >= low) & (size <= high))

    def _frames(self, xyz: Tensor, seen: Tensor) -> Frames:
        """Of each body, with (N, M) in front."""
        found = self.frames_of(xyz.flatten(0, 1), seen.flatten(0, 1))
        return Frames(*(part.unflatten(0, (-1, xyz.shape[1])) for part in found))

    def _stand_up(self, xyz: Tensor, seen: Tensor) -> Tensor:
        """All clips turned by right angles until most trunks lead along y."""
        found = self._frames(xyz, seen)
        chosen = _first_of(found.found, _most_moving(xyz, seen))
        up = (found.rotation[:, :, 1] * chosen[..., None]).sum(dim=(0, 1))  # (3,)
        lengths = torch.stack([up, -up], dim=1).flatten()  # x, -x, y, -y, z, -z
        # The most upright of the six; where no body tells, y.
        number = torch.arange(6, device=xyz.device)
        longest = lengths.amax(dim=0)
        best = torch.where(lengths >= longest, number, 6).amin(dim=0)
        best = torch.where(longest > 0, best, 2)
        turn = (self.upright * (number == best)[:, None, None]).sum(dim=0)
        return xyz @ turn.T

    def _pick(self, xyz: Tensor, seen: Tensor) -> _Clips:
        """The bodies that are kept and the main one; a centre that is at 0 throughout is seen."""
        present = seen.flatten(2).any(dim=2)  # (N, M)
        moving = motion(xyz[..., :2] if self.how.planar else xyz, seen)
        rank = _ranks([moving], present)
        kept = present & (rank < self.how.bodies)
        if not self.how.planar:
            centred = ~seen[..., self.center].flatten().any()
            column = torch.arange(seen.shape[3], device=seen.device) == self.center  # (V,)
            seen = seen | (centred & column & seen.any(dim=3, keepdim=True))
        seen = seen & kept[:, :, None, None]
        return _Clips(torch.where(seen.unsqueeze(-1), xyz, 0.0), seen, kept, kept & (rank == 0))

    def _window(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """The first and the last frame that shows a joint, (N,) float64."""
        shown = seen.any(dim=3).any(dim=1)  # (N, T)
        time = torch.arange(seen.shape[2], device=seen.device).double()
        first = torch.where(shown, time, math.inf).amin(dim=1)
        last = torch.where(shown, time, 0.0).amax(dim=1)
        return torch.minimum(first, last), last

    def _place(self, x: Tensor, clips: _Clips) -> Tensor:
        """Resampled clips x in their frame; ``clips`` are the same, not resampled."""
        ever = clips.seen.any(dim=2)  # (N, M, V)
        rotation, origin, scale = self._frame_of(clips) if self.finds_body else (None, None, None)
        if self.how.centred:
            x = self._centre(x, ever)
            if self.shoulders is not None:
                x = self._turn(x, clips)
            return x / scale if self.finds_body else x
        if not self.finds_body:
            return x
        if self.how.frame == "body":
            x = (x - origin[:, None, None, None]) @ rotation.mT[:, None, None]
        if self.how.size_by == "torso":
            x = x / scale
        nudge = torch.tensor([1e-9, 0.0, 0.0], dtype=torch.float64, device=x.device)
        x = torch.where((x == 0).all(dim=-1, keepdim=True), nudge, x)
        x = torch.where(ever[:, :, None, :, None], x, 0.0)
        return self._as_pyskl(x, clips, ever) if self.pyskl else x

    def _frame_of(self, clips: _Clips) -> tuple[Tensor, Tensor, Tensor]:
        """rotation (N, 3, 3), origin (N, 3) and scale (N, 1, 1, 1, 1) that a clip is put in by."""
        found = self._frames(clips.xyz, clips.seen)
        order = torch.where(clips.main, -1, _most_moving(clips.xyz, clips.seen))
        chosen = _first_of(found.found, order)  # (N, M) float64
        known = chosen.sum(dim=1) > 0.5
        rotation = (found.rotation * chosen[..., None, None]).sum(dim=1)
        rotation = torch.where(known[:, None, None], rotation, self.identity)
        origin = (found.origin * chosen[..., None]).sum(dim=1)
        origin = torch.where(known[:, None], origin, self._middle(clips))
        scale = torch.where(known, (found.scale * chosen).sum(dim=1), 1.0)
        return rotation, origin, scale[:, None, None, None, None]

    def _middle(self, clips: _Clips) -> Tensor:
        """Where the main body is, if its frame cannot be found: (N, 3)."""
        main = clips.main.unsqueeze(2).unsqueeze(3)
        xyz = (clips.xyz * main.unsqueeze(-1)).sum(dim=1)  # (N, T, V, 3)
        seen = (clips.seen & main).any(dim=1)  # (N, T, V)
        column = torch.arange(seen.shape[2], device=seen.device) == self.center
        by_center = seen[:, :, self.center].any(dim=1)[:, None, None]  # else by all joints
        mask = first_seen((seen & (column | ~by_center)).flatten(1))
        return geometric_median(xyz.flatten(1, 2).unsqueeze(2), mask.unsqueeze(2)).squeeze(1)

    def _centre(self, x: Tensor, ever: Tensor) -> Tensor:
        """The centre joint subtracted in each frame, or the mean of what was ever seen."""
        there = ever[:, :, None, :, None]  # (N, M, 1, V, 1)
        count = there.double().sum(dim=3, keepdim=True).clamp(min=1)
        mean = torch.where(there, x, 0.0).sum(dim=3, keepdim=True) / count
        origin = x[:, :, :, self.center : self.center + 1]
        origin = torch.where(there[:, :, :, self.center : self.center + 1], origin, mean)
        return torch.where(there, x - origin, 0.0)

    def _turn(self, x: Tensor, clips: _Clips) -> Tensor:
        """About y until the main body's shoulders, in the first frame that shows them, lie along
        x."""
        main = clips.main.unsqueeze(2).unsqueeze(3)
        xyz = (clips.xyz * main.unsqueeze(-1)).sum(dim=1)
        place, ok = self.shoulders(xyz, (clips.seen & main).any(dim=1))
        line = place[:, :, 1] - place[:, :, 0]  # (N, T, 3)
        length = (line[..., 0] ** 2 + line[..., 2] ** 2).sqrt()
        shown = first_seen(ok.all(dim=2) & (length >= 1e-3), 1).double()  # (N, T), one at most
        known = shown.sum(dim=1) > 0.5
        length = torch.where(known, (length * shown).sum(dim=1), 1.0)
        cos = torch.where(known, (line[..., 0] * shown).sum(dim=1) / length, 1.0)
        sin = torch.where(known, (line[..., 2] * shown).sum(dim=1) / length, 0.0)
        cos, sin = cos[:, None, None, None], sin[:, None, None, None]
        a, y, b = x.unbind(dim=-1)
        return torch.stack([cos * a + sin * b, y, cos * b - sin * a], dim=-1)

    def _as_pyskl(self, x: Tensor, clips: _Clips, ever: Tensor) -> Tensor:
        """See `msclr.encoder.preparation._as_pyskl`."""
        if self.spine is not None:
            main = clips.main[:, :, None]
            of_main = (x[:, :, 0] * main.unsqueeze(-1)).sum(dim=1)[:, None]  # (N, 1, V, 3)
            place, ok = self.spine(of_main, (ever & main).any(dim=1)[:, None])
            x = x - torch.where(ok[..., None], place, 0.0)[:, None]
        x = x @ self.to_pyskl.T
        return torch.where(ever[:, :, None, :, None], x, 0.0)


def motion(xyz: Tensor, seen: Tensor) -> Tensor:
    """How much each body (N, M) moves: see `msclr.data.prepare.clean.motion`."""
    count = seen.double().sum(dim=2).clamp(min=1)[:, :, None, :, None]  # (N, M, 1, V, 1)
    shown = seen.unsqueeze(-1)
    mean = torch.where(shown, xyz, 0.0).sum(dim=2, keepdim=True) / count
    apart = torch.where(shown, xyz - mean, 0.0)
    return (apart * apart / count).flatten(2).sum(dim=2)


def _ranks(keys: list[Tensor], there: Tensor) -> Tensor:
    """The place of each body (N, M) among those that are there, the largest first by the first key,
    where that is equal by the next, and then in the order that they come in."""
    number = torch.arange(there.shape[1], device=there.device)
    before = number[None, :] < number[:, None]  # (M, M), whether the second comes before the first
    for key in reversed(keys):
        mine, other = key[:, :, None], key[:, None, :]
        before = (other > mine) | ((other == mine) & before)
    return (before & there[:, None, :]).long().sum(dim=2)


def _most_moving(xyz: Tensor, seen: Tensor) -> Tensor:
    """The place of each body (N, M) in the order in which `body_frame` looks at them."""
    count = seen.double().sum(dim=2).clamp(min=1)[:, :, None, :, None]
    shown = seen.unsqueeze(-1)
    mean = torch.where(shown, xyz, 0.0).sum(dim=2, keepdim=True) / count
    apart = torch.where(shown, xyz - mean, 0.0)
    moved = (apart * apart).flatten(2).sum(dim=2)
    often = seen.flatten(2).long().sum(dim=2)
    return _ranks([moved, often], often > 0)


def _first_of(ok: Tensor, order: Tensor) -> Tensor:
    """1 for the one of (N, M) that is ok and comes first in the order, else 0, float64."""
    place = torch.where(ok, order, 1 << 30)
    return (ok & (place == place.amin(dim=1, keepdim=True))).double()


def fill_gaps(xyz: Tensor, seen: Tensor) -> Tensor:
    """Missing joints (N, M, T, V) between those seen before and after: as `clean.fill_gaps`.

    The k-th frame that shows a joint is found by counting those before it, once for all frames.
    """
    frames = seen.shape[2]
    time = torch.arange(frames, device=xyz.device)[:, None].expand_as(seen)  # (N, M, T, V)
    count = seen.long().cumsum(dim=2)
    # One more place at the end takes what is not seen.
    place = torch.where(seen, count - 1, frames)
    spare = torch.zeros_like(time[:, :, :1])
    at = torch.cat([torch.zeros_like(time), spare], dim=2).scatter(2, place, time)
    last = (count[:, :, -1:] - 1).clamp(min=0)
    a = at.gather(2, (count - 1).clamp(min=0))
    b = at.gather(2, torch.minimum(torch.where(seen, count - 1, count), last))
    weight = ((time - a).double() / (b - a).clamp(min=1).double())[..., None]
    left, right = (xyz.gather(2, of[..., None].expand_as(xyz)) for of in (a, b))
    return (1 - weight) * left + weight * right


def resample(xyz: Tensor, first: Tensor, last: Tensor, frames: int) -> Tensor:
    """The frames ``first`` to ``last`` (N,) of each clip as ``frames``: as `clean.resample`."""
    length = (last - first)[:, None]  # (N, 1), of steps
    number = torch.arange(frames, device=xyz.device)
    position = number * (length / max(frames - 1, 1))
    if frames > 1:
        position = torch.where(number == frames - 1, length, position)
    left = position.floor()
    weight = (position - left)[:, None, :, None, None]
    right = torch.minimum(left + 1, length)
    left, right = (
        xyz.gather(2, _spread((side + first[:, None]).long(), xyz)) for side in (left, right)
    )
    return (1 - weight) * left + weight * right


def _spread(frame: Tensor, xyz: Tensor) -> Tensor:
    """Indices (N, F) of frames as those of (N, M, F, V, 3)."""
    n, m, _, v, c = xyz.shape
    return frame[:, None, :, None, None].expand(n, m, frame.shape[1], v, c)
