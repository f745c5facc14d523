"""Clips of a data set that is larger than its device, gathered one step ahead."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import torch
from torch import Tensor

Wanted = Mapping[str, Tensor]  # layout -> (U,) int64 on the CPU, clips


class HostClips:
    """Memory maps of clips, of which some at a time are brought to the device.

    Args:
        maps: {layout: (N, M, T, V, 3) float32}.
        dtype: that the clips are to have on the device.
        device: where they go. For a GPU they are gathered in pinned memory, of which there are two
            parts: while the copy of one runs, the next clips are gathered in the other.
    """

    def __init__(self, maps: Mapping[str, np.ndarray], dtype: torch.dtype, device: torch.device):
        self.maps, self.dtype, self.device = dict(maps), dtype, device
        self._start()

    def _start(self) -> None:
        """What belongs to one process: a forked one inherits neither threads nor their results."""
        self._process = os.getpid()
        self._parts = [_Part(self.device), _Part(self.device)]
        self._pool: ThreadPoolExecutor | None = None  # made when first needed
        self._ahead: tuple[Wanted, Future] | None = None

    def __getstate__(self) -> dict[str, Any]:
        maps = {layout: to_pickle(held) for layout, held in self.maps.items()}
        return {"maps": maps, "dtype": self.dtype, "device": self.device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)
        self.maps = {layout: reopened(held) for layout, held in self.maps.items()}

    def prefetch(self, wanted: Wanted) -> None:
        """Begin to gather what the next :meth:`take` will ask for, in the background."""
        if self._process != os.getpid():
            self._start()
        self._pool = self._pool or ThreadPoolExecutor(1, "msclr-clips")
        self._ahead = wanted, self._pool.submit(self._gather, wanted)

    def take(self, wanted: Wanted) -> dict[str, Tensor]:
        """{layout: (U, M, T, V, 3)} on the device, in the order asked for."""
        if self._process != os.getpid():
            self._start()
        ahead, self._ahead = self._ahead, None
        if ahead is not None and _same(ahead[0], wanted):
            part, gathered = ahead[1].result()
        else:
            if ahead is not None:
                wait([ahead[1]])  # one gathers at a time
            part, gathered = self._gather(wanted)
        return part.to_device(gathered)

    def close(self) -> None:
        """End the thread in the background; clips can still be taken."""
        pool, self._pool, self._ahead = self._pool, None, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    def _gather(self, wanted: Wanted) -> tuple[_Part, dict[str, Tensor]]:
        # one gathers at a time, so the two parts take turns, also if what was gathered is not taken
        part = self._parts.pop(0)
        self._parts.append(part)
        part.wait()
        return part, {layout: self._rows(layout, clips, part) for layout, clips in wanted.items()}

    def _rows(self, layout: str, clips: Tensor, part: _Part) -> Tensor:
        held = self.maps[layout]
        out = part.room(layout, (len(clips), *held.shape[1:]), self.dtype)
        index = clips.numpy()
        if len(index) and not (index.min() >= 0 and index.max() < len(held)):
            raise IndexError(f"clips must be 0..{len(held) - 1}, got {index.min()}..{index.max()}")
        if self.dtype == torch.float32 and isinstance(held, np.ndarray):
            np.take(
                held, index, axis=0, out=out.numpy(), mode="clip"
            )  # "raise" would copy once more
        else:
            out.copy_(torch.from_numpy(held[index]))
        return out


class _Part:
    """Host memory for the clips of one step."""

    def __init__(self, device: torch.device):
        self._device, self._pinned = device, device.type == "cuda"
        self._memory: dict[str, Tensor] = {}
        self._copied: torch.cuda.Event | None = None

    def wait(self) -> None:
        """Until the last copy from here is through."""
        if self._copied is not None:
            self._copied.synchronize()

    def room(self, layout: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if not self._pinned:  # these clips are what is handed out, so they are not written to again
            return torch.empty(shape, dtype=dtype)
        if layout not in self._memory or len(self._memory[layout]) < shape[0]:
            self._memory[layout] = torch.empty(shape, dtype=dtype, pin_memory=True)
        return self._memory[layout][: shape[0]]

    def to_device(self, gathered: dict[str, Tensor]) -> dict[str, Tensor]:
        if not self._pinned:
            return {layout: x.to(self._device) for layout, x in gathered.items()}
        with torch.cuda.device(self._device):
            copies = {k: x.to(self._device, non_blocking=True) for k, x in gathered.items()}
            self._copied = torch.cuda.Event()
            self._copied.record()
        return copies


def to_pickle(held: Any) -> Any:
    """The file to reopen in another process, as a pickled memory map would hold all its clips.

    Only for a whole file; a part of one knows its file too, but not where in it it lies. That, and
    anything but a memory map, comes back as it is.
    """
    whole = isinstance(held, np.memmap) and isinstance(held.base, mmap.mmap)
    return os.fspath(held.filename) if whole else held


def reopened(held: Any) -> Any:
    """What :func:`to_pickle` was given."""
    return np.load(held, mmap_mode="r") if isinstance(held, str) else held


def _same(a: Wanted, b: Wanted) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[layout], b[layout]) for layout in a)
