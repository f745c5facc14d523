"""Under which layouts the clips of a batch are seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from msclr.data.dataset import SkeletonDataset
from msclr.data.stored_views import Part
from msclr.errors import InputError
from msclr.layouts import get
from msclr.methods import anchored_pairs, draw_pairs
from msclr.recipe_keys import ANCHOR


class LayoutChoice:
    """Draws layouts for clips out of those that their part of a data set has.

    Args:
        dataset: whose layouts are numbered in their order.
        pairs: "batch", "sample" or "all", see :func:`msclr.methods.draw_pairs`; or "anchor=LAYOUT",
            which is "sample" with query or key of each clip under that layout.
        derived_share: of the views that are under derived layouts or sub-layouts; None: each
            layout as often. Only for the pairs "sample".

    Raises:
        InputError: all pairs of clips with unlike numbers of layouts, or clips without the anchor.
    """

    def __init__(self, dataset: SkeletonDataset, pairs: str, derived_share: float | None = None):
        anchor = pairs.removeprefix(ANCHOR) if pairs.startswith(ANCHOR) else None
        self.part_of, self.pairs = dataset.part_of, "sample" if anchor else pairs
        numbers = {name: i for i, name in enumerate(dataset.layouts)}
        of_part = [np.array([numbers[name] for name in part.layouts]) for part in dataset.parts]
        self.counts = np.array([len(layouts) for layouts in of_part])  # (parts,)
        if pairs == "all" and len(set(self.counts)) > 1:
            has = "; ".join(f"{x.store.path}: {', '.join(x.layouts)}" for x in dataset.parts)
            raise InputError(
                f"all pairs of layouts want as many of each data set, here are {has}; choose "
                "pairs=sample, or layouts and derive so that they are as many"
            )
        self.anchor = None if anchor is None else _places(dataset, anchor)  # (parts,)
        self.table = _padded(of_part)  # (parts, most), numbers of layouts
        self.ends = None  # (parts, most), where the share of each ends
        if derived_share is not None:
            weights = [_weights(part, derived_share) for part in dataset.parts]
            self.ends = _padded(weights).cumsum(axis=1)

    def pairs_of(self, clips: Tensor, uniform: Callable[[int], Tensor]) -> np.ndarray:
        """Numbers of the layouts of query and key of clips (B,): int64 (2, B).

        uniform(n) gives n numbers in [0, 1): one for the batch, or one for each clip. They are
        others when it is called again.
        """
        part = self.part_of[clips.numpy()]
        counts = self.counts[part]
        if self.ends is None:
            layouts = torch.from_numpy(counts)
            if self.anchor is None:
                drawn = draw_pairs(self.pairs, layouts, len(part), uniform)
            else:
                drawn = anchored_pairs(torch.from_numpy(self.anchor[part]), layouts, uniform)
            return self.table[part, np.stack([x.numpy() for x in drawn])]
        both = np.stack([uniform(len(part)).numpy() for _ in range(2)])  # (2, B)
        drawn = (both[..., None] >= self.ends[part]).sum(axis=2)
        return self.table[part, drawn.clip(max=counts - 1)]

    def every(self, clips: Tensor) -> np.ndarray:
        """Numbers of all layouts of clips (B,): int64 (B, L)."""
        return self.table[self.part_of[clips.numpy()]]


def _places(dataset: SkeletonDataset, anchor: str) -> np.ndarray:
    """Where the anchor is among the layouts of each part of a data set: int64 (parts,)."""
    name = anchor if anchor in dataset.layouts else get(anchor).name
    for part in dataset.parts:
        if name not in part.layouts:
            raise InputError(
                f"pairs: anchor={anchor}, but the clips of {part.store.path} are under "
                f"{', '.join(part.layouts)}; choose one of them, or give more layouts"
            )
    return np.array([list(part.layouts).index(name) for part in dataset.parts])


def _padded(rows: list[np.ndarray]) -> np.ndarray:
    out = np.zeros((len(rows), max(map(len, rows))), rows[0].dtype)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = values
    return out


def _weights(part: Part, share: float) -> np.ndarray:
    """How often each layout of a part is drawn; all alike where one kind alone is there."""
    derived = part.derived | part.sub_layouts
    is_derived = np.array([name in derived for name in part.layouts])
    if is_derived.all() or not is_derived.any():
        return np.full(len(is_derived), 1 / len(is_derived))
    count = is_derived.sum()
    return np.where(is_derived, share / count, (1 - share) / (len(is_derived) - count))
