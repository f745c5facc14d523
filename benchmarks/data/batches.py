"""Batches: ours against PyTorch and against NumPy clip by clip.

A triple is what a step of AimCLR takes: two normal views and an extreme one of every clip. The
contestants are `torch`, whole batches in about thirty PyTorch operations a view (the reference of
`kernels.augment`), and NumPy clip by clip as data loaders do it, both vectorised within the clip:
`usual`, each augmentation a function of its own, the blur a sum of shifted clips; and `lean`, the
fewest and largest NumPy operations that the formulas allow (one matrix product for shear and
rotation, one for the blur). NumPy draws from a generator of its own, which is cheaper than one a
clip, and is told which bodies are absent. Clips are in memory; each contestant ends with a batch.
Each makes several batches in a row, of other clips, as an epoch does; times are those of one.

`ratio` is the time of `usual` over ours in the same run, on the cores there are; `ratio_a_core` is
the same with ours on one thread, as a loader has a process a core.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.machine import describe, peak_extra_bytes, side_by_side
from benchmarks.output import save, setting
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
    """One batch after the other; the next comes when the one before is gone."""

    def run() -> None:
        for index in indices:
            make(index)

    return run


def measure(batch: int, layout_name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peak memory of every contestant's triple of a batch."""
    device, layout = torch.device(args.device), layouts.get(layout_name)
    rng = np.random.default_rng(0)
    clips = rng.standard_normal(
        (CLIPS, args.bodies, args.frames, layout.num_joints, 3), dtype=np.float32
    )
    present = np.ones((CLIPS, args.bodies), bool)
    index = rng.integers(CLIPS, size=(IN_A_ROW, batch))
    tables = {"flip": layout.flip.to(device), "parents": layout.parents.to(device)}
    x = torch.from_numpy(clips).to(device)
    rows, half = torch.from_numpy(index).to(device), x.half()
    threads = torch.get_num_threads()

    def ours(clips: Tensor = x, **options: Any) -> Callable:
        return each(lambda r: triple(clips, r, tables, backend=args.backend, **options), rows)

    def on_one_thread() -> None:
        torch.set_num_threads(1)
        ours()()
        torch.set_num_threads(threads)

    loaders = [kind(clips, present, layout.flip.numpy()) for kind in (Usual, Lean)]
    runs: dict[str, Callable] = {
        "ours": ours(),
        "ours_one_thread": on_one_thread,
        "ours_motion": ours(stream="motion"),
        "ours_bone": ours(stream="bone"),
        "ours_float16": ours(half),
        "torch": each(lambda r: triple(x, r, tables, backend="reference"), rows),
        "usual": each(loaders[0].batch, index),
        "lean": each(loaders[1].batch, index),
    }
    if device.type != "cpu":
        del runs["ours_one_thread"]
    times = {
        name: {key: value / IN_A_ROW for key, value in of.items()}
        for name, of in side_by_side(runs, device, args.rounds).items()
    }
    seconds = {name: of["median"] for name, of in times.items()}
    found = {
        "seconds": times,
        "ratio": seconds["usual"] / seconds["ours"],
        "ratio_lean": seconds["lean"] / seconds["ours"],
        "ratio_torch": seconds["torch"] / seconds["ours"],
        "clips_s": batch / seconds["ours"],
        "gb_s": 1e-9 * 2 * len(VIEWS) * batch * x[0].nbytes / seconds["ours"],  # read and written
        "peak_extra_bytes": {
            backend or "ours": peak_extra_bytes(
                partial(triple, x, rows[0], tables, backend=backend or args.backend), device
            )
            for backend in ("", "reference")
        },
    }
    if device.type == "cpu":
        found["ratio_a_core"] = seconds["usual"] / seconds["ours_one_thread"]
        found["ratio_lean_a_core"] = seconds["lean"] / seconds["ours_one_thread"]
    return found


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks data batches", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--backend", help="of ours (default: the one that would be chosen)")
    parser.add_argument("--batch", type=int, nargs="+", default=[128], help="clips")
    parser.add_argument("--layouts", nargs="+", default=["kinectv2_25", "smplx_42"])
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--bodies", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--out", type=Path, help="file to write (default: one in results/)")
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    result = {
        "benchmark": "data_batches",
        "backend": args.backend or "default",
        "malloc": os.environ.get("GLIBC_TUNABLES", "as it comes"),
        **describe(device),
        "rows": [],
    }
    for layout in args.layouts:
        for batch in args.batch:
            sizes = {"B": batch, "M": args.bodies, "T": args.frames, "layout": layout}
            row = {"op": "batches", "dtype": "float32", **sizes, **measure(batch, layout, args)}
            result["rows"].append(row)
            if not args.json:
                print(_line(row), flush=True)
    return save(result, f"data_batches-{device.type}-{setting(device, args.backend)}", args)


def _line(row: dict[str, Any]) -> str:
    a_core = f" ({row['ratio_a_core']:.1f}x a core)" if "ratio_a_core" in row else ""
    return (
        f"{row['B']} clips of {row['M']} bodies, {row['T']} frames, {row['layout']}: "
        f"{1e3 * row['seconds']['ours']['median']:.2f} ms a triple, {row['clips_s']:.0f} clips/s, "
        f"{row['gb_s']:.1f} GB/s, {row['ratio']:.1f}x of the usual NumPy{a_core}, "
        f"{row['ratio_lean']:.1f}x of the lean one, {row['ratio_torch']:.1f}x of PyTorch, "
        f"memory {1e-6 * row['peak_extra_bytes']['ours']:.0f} MB "
        f"(PyTorch: {1e-6 * row['peak_extra_bytes']['reference']:.0f})"
    )


if __name__ == "__main__":
    main()
