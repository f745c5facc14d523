"""Views as another convention would show them: fewer joints, or joints a little elsewhere."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from msclr.data.random import ClipRandom
from msclr.host import to_device
from msclr.layouts import Layout

CUTS = 3  # joints a view at most that are taken away, each with all that hangs on it
_LARGEST = 1 / 3  # of the layout's joints, that hang on one of them


class JointSubsets:
    """Connected subsets of a layout's joints, one drawn for each view.

    A joint that is left out takes the place of the nearest one that is kept on its way to the
    centre, which is what fills a place that a convention lacks (docs/layouts.md). The layout, its
    graph and all shapes stay as they are. What is drawn follows from the seed, the clip, the pass
    and the purpose alone, on the host.

    Args:
        layout: whose joints.
        share: of the views that show a subset, 0 to 1.
    """

    def __init__(self, layout: Layout, share: float):
        self.share, self.parents = share, layout.parents.numpy()  # (V,)
        roots = np.flatnonzero(self.parents == np.arange(layout.num_joints))
        order = list(roots)
        for joint in order:  # it grows as it is read: parents come before their children
            order += [v for v in np.flatnonzero(self.parents == joint) if v != joint]
        self.order = order[len(roots) :]
        hanging = np.ones(layout.num_joints)
        for joint in reversed(self.order):
            hanging[self.parents[joint]] += hanging[joint]
        small = hanging <= _LARGEST * layout.num_joints
        self.removable = np.array([joint for joint in self.order if small[joint]], np.int64)

    def draw(self, clips: Tensor, passes: Tensor, seed: int, purpose: int) -> np.ndarray:
        """Whose place each joint takes in each view: int64 (B, V), the joint's own if it is kept.

        clips, passes: int64 (B,), on the CPU.
        """
        random = ClipRandom(clips, passes, seed, purpose).uniform(1 + CUTS).numpy()
        cut = np.zeros((len(random), len(self.parents)), bool)
        if len(self.removable):
            chosen = self.removable[(random[:, 1:] * len(self.removable)).astype(np.int64)]
            np.put_along_axis(cut, chosen, True, axis=1)
        cut[random[:, 0] >= self.share] = False
        place = np.tile(np.arange(len(self.parents)), (len(random), 1))  # (B, V)
        for joint in self.order:
            parent = self.parents[joint]
            gone = cut[:, joint] | (place[:, parent] != parent)
            place[gone, joint] = place[gone, parent]
        return place


def slide_joints(
    x: Tensor, along: np.ndarray, parents: np.ndarray, stream: str, planar: bool
) -> Tensor:
    """Views x (B, C, T, V, M) of a stream whose joints slide along the bones to their ``parents``
    (V,), by ``along`` (B, V) of a bone's length. The score of ``planar`` clips stays.

    So two conventions differ that mark a joint at another point of the same limb.
    """
    share = to_device(along, x.device)[:, None, None, :, None]  # (B, 1, 1, V, 1)
    parent = to_device(parents, x.device)
    if stream == "bone":  # from the parent, which slides as well
        shift = share * x
        moved = x - shift + shift.index_select(3, parent)
    else:
        moved = x + share * (x.index_select(3, parent) - x)
    return torch.cat([moved[:, :2], x[:, 2:]], dim=1) if planar else moved


def take_places(x: Tensor, place: np.ndarray, stream: str) -> Tensor:
    """Views x (B, C, T, V, M) of a stream in which joints take the places (B, V) of others."""
    index = to_device(place, x.device)[:, None, None, :, None]  # (B, 1, 1, V, 1)
    if stream == "bone":  # a bone from a joint to itself
        kept = index == torch.arange(x.shape[3], device=x.device)[:, None]
        return torch.where(kept, x, torch.zeros_like(x))
    return x.gather(3, index.expand_as(x))
