"""Batches: ours against PyTorch and against NumPy clip by clip.

A triple is what a step of AimCLR takes: two normal views and an extreme one of every clip. The
contestants are `torch`, whole batches in about thirty PyTorch operations per view (the reference of
`kernels.augment`), and NumPy clip by clip as data loaders do it, both vectorised within the clip:
`usual`, with a function for each augmentation, the blur a sum of shifted clips; and `lean`, the
fewest and largest NumPy operations that the formulas allow (one matrix product for shear and
rotation, one for the blur). NumPy draws all numbers from one generator, which is cheaper than one
per clip, and is given the absent bodies. Clips are in memory; each contestant ends with a batch.
Each makes several batches in a row, of other clips, as an epoch does; times are those of one.

`ours_one_thread` is ours as a loader would run it, with one process per core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.options import BACKENDS, positive
from benchmarks.runner import Case, Part, Setup
from msclr import layouts
from msclr.kernels import augment

VIEWS = ("normal", "normal", "extreme")
CLIPS = 2048  # that batches are taken from
IN_A_ROW = 8  # batches
TAPS = np.arange(-7, 8)


class Loader:
    """One triple of views after the other, clip by clip: what both NumPy contestants share."""

    def __init__(self, clips: np.ndarray, bodies: np.ndarray, flip: np.ndarray):
        self.clips, self.bodies, self.flip = clips, bodies, flip
        self.random = np.random.Generator(np.random.SFC64(0))  # the fastest that NumPy has
        frames = clips.shape[2]
        self.rows = np.arange(frames)[:, None]
        self.sources = np.clip(self.rows + TAPS, 0, frames - 1)  # (T, 15)

    def batch(self, index: np.ndarray) -> list[np.ndarray]:
        """Three arrays (B, M, T, V, 3)."""
        out = [np.empty((len(index), *self.clips.shape[1:]), np.float32) for _ in VIEWS]
        for place, clip in enumerate(index):
            for made, view in zip(out, VIEWS, strict=True):
                made[place] = self.view(self.clips[clip], self.bodies[clip], view == "extreme")
        return out

    def crop(self, x: np.ndarray) -> np.ndarray:
        frames = x.shape[1]
        pad = frames // 6
        index = np.arange(frames) + self.random.integers(-pad, pad + 1)
        index = np.where(index < 0, -1 - index, index)
        return x[:, np.where(index >= frames, 2 * frames - 1 - index, index)]

    def shear(self) -> np.ndarray:
        matrix = self.random.uniform(-0.5, 0.5, (3, 3)).astype(np.float32)
        np.fill_diagonal(matrix, 1)
        return matrix

    def rotation(self) -> np.ndarray:
        largest = np.ones(3)
        largest[self.random.integers(3)] = 30
        angles = np.radians(self.random.random(3) * largest)
        (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
        return np.array(
            [
                [cy * cz, -cy * sz, sy],
                [cx * sz + sx * sy * cz, cx * cz - sx * sy * sz, -sx * cy],
                [sx * sz - cx * sy * cz, sx * cz + cx * sy * sz, cx * cy],
            ],
            np.float32,
        )

    def taps(self) -> np.ndarray:
        taps = np.exp(-(TAPS**2) / (2 * self.random.uniform(0.1, 2) ** 2))
        return (taps / taps.sum()).astype(np.float32)

    def half(self) -> bool:
        return self.random.random() < 0.5

    def view(self, x: np.ndarray, present: np.ndarray, extreme: bool) -> np.ndarray:
        raise NotImplementedError


class Usual(Loader):
    def view(self, x: np.ndarray, present: np.ndarray, extreme: bool) -> np.ndarray:
        x = self.crop(x) @ self.shear().T
        if not extreme:
            return x
        if self.half():
            x = x[:, :, self.flip]
        x = x @ self.rotation().T
        if self.half():
            x = x + self.random.normal(0, 0.01, x.shape).astype(np.float32)
            x[~present] = 0
        if self.half():
            padded = np.pad(x, ((0, 0), (7, 7), (0, 0), (0, 0)), mode="edge")
            x = sum(tap * padded[:, i : i + x.shape[1]] for i, tap in enumerate(self.taps()))
        if self.half():
            x[..., self.random.integers(3)] = 0
        return x


class Lean(Loader):
    def view(self, x: np.ndarray, present: np.ndarray, extreme: bool) -> np.ndarray:
        bodies, frames, joints, _ = shape = x.shape
        x = self.crop(x)
        matrix = self.shear()
        if extreme:
            if self.half():
                x = x[:, :, self.flip]
            matrix = self.rotation() @ matrix
        x = (x.reshape(-1, 3) @ matrix.T).reshape(shape)
        if not extreme:
            return x
        if self.half():
            x += np.float32(0.01) * self.random.standard_normal(shape, dtype=np.float32)
            if not present.all():
                x[~present] = 0
        if self.half():
            weights = np.zeros((frames, frames), np.float32)
            np.add.at(weights, (self.rows, self.sources), self.taps())
            x = (weights @ x.reshape(bodies, frames, -1)).reshape(shape)
        if self.half():
            x[..., self.random.integers(3)] = 0
        return x


def triple(x: Tensor, index: Tensor, tables: dict[str, Tensor], **options: Any) -> list[Tensor]:
    epochs = torch.zeros_like(index)
    return [
        augment(x, index, epochs, seed=0, purpose=i, view=view, **tables, **options)
        for i, view in enumerate(VIEWS)
    ]


def each(make: Callable, indices: Sequence) -> Callable[[], None]:
    """One batch after the other; the last is freed before the next is made."""

    def run() -> None:
        for index in indices:
            make(index)

    return run


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch", type=positive, nargs="+", default=[128], help="clips")
    parser.add_argument("--layouts", nargs="+", default=["kinectv2_25", "smplx_42"])
    parser.add_argument("--frames", type=positive, default=50)
    parser.add_argument("--bodies", type=positive, default=2)


def cases(args: argparse.Namespace) -> list[Case]:
    names = ["ours", "ours_motion", "ours_bone", "ours_float16", "torch", "usual", "lean"]
    names += ["ours_one_thread"] * (args.device.type == "cpu")
    found = []
    for layout, batch in product(args.layouts, args.batch):
        sizes = {"B": batch, "M": args.bodies, "T": args.frames, "layout": layout}
        numbers = CLIPS * args.bodies * args.frames * layouts.get(layout).num_joints * 3
        found.append(
            Case({"op": "batches", "dtype": "float32", **sizes}, tuple(names), 4 * numbers)
        )
    return found


def parts(case: Case, args: argparse.Namespace) -> Iterator[Part]:
    """Every contestant's triples of some batches in a row."""
    device, layout, batch = args.device, layouts.get(case.sizes["layout"]), case.sizes["B"]
    rng = np.random.default_rng(0)
    clips = rng.standard_normal(
        (CLIPS, args.bodies, args.frames, layout.num_joints, 3), dtype=np.float32
    )
    index = rng.integers(CLIPS, size=(IN_A_ROW, batch))
    tables = {"flip": layout.flip.to(device), "parents": layout.parents.to(device)}
    x, rows = torch.from_numpy(clips).to(device), torch.from_numpy(index).to(device)

    def ours(clips: Tensor = x, **options: Any) -> Callable[[], None]:
        options = {"backend": args.backend, **options}
        return each(lambda r: triple(clips, r, tables, **options), rows)

    present = np.ones((CLIPS, args.bodies), bool)
    loaders = {k: kind(clips, present, layout.flip.numpy()) for k, kind in LOADERS.items()}
    runs = {
        "ours": ours(),
        "ours_motion": ours(stream="motion"),
        "ours_bone": ours(stream="bone"),
        "ours_float16": ours(x.half()),
        "torch": ours(backend="reference"),
        **{name: each(loader.batch, index) for name, loader in loaders.items()},
    }
    if device.type == "cpu":
        runs["ours_one_thread"] = on_one_thread(ours())
    yield Part(
        runs,
        bytes=2 * len(VIEWS) * batch * x[0].nbytes,  # read and written
        amounts=dict.fromkeys(runs, IN_A_ROW),
    )


LOADERS = {"usual": Usual, "lean": Lean}


def on_one_thread(run: Callable[[], None]) -> Callable[[], None]:
    threads = torch.get_num_threads()

    def alone() -> None:
        torch.set_num_threads(1)
        run()
        torch.set_num_threads(threads)

    return alone


SETUP = Setup("1 minute", file="{device}-{setting}", backends=BACKENDS[:3])
