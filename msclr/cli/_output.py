"""What the commands print, and where: results on stdout, all else on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def print_json(value: Any) -> None:
    print(json.dumps(value))


def say(text: str) -> None:
    print(text, file=sys.stderr)


class TrainingBar:
    """Draws a bar on stderr for pretrain: loss, contrast accuracy, clips/s, time left."""

    def __init__(self):
        self._bar = None

    def __enter__(self) -> Callable | None:
        return None if os.environ.get("RANK", "0") != "0" else self._on_step

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()  # so that a message after it begins a line of its own

    def _on_step(self, done: int, steps: int, records) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=steps, initial=done - 1, unit="step", dynamic_ncols=True)
        if records:
            last = records[-1]
            self._bar.set_postfix_str(
                f"loss {last.loss:.3f}, contrast {100 * last.contrast_accuracy:.0f} %, "
                f"{last.clips_per_second:.0f} clips/s",
                refresh=False,
            )
        self._bar.update()


class ClipBar:
    """Draws a bar on stderr for prepare: clips done, clips/s, time left."""

    def __init__(self):
        self._bar = None

    def __enter__(self) -> Callable[[int, int], None]:
        return self._on_clip

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _on_clip(self, done: int, clips: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=clips, unit="clip", dynamic_ncols=True)
        self._bar.update(done - self._bar.n)
