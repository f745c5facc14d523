"""Files of tensors, read without running code from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from msclr.errors import InputError


def read_tensors(path: Path, mend: str, map_location: str | torch.device = "cpu") -> Any:
    """What ``torch.save`` wrote, with ``weights_only=True``; ``mend`` ends the error's message.

    Raises:
        InputError: no such file, truncated or damaged, or with other things than tensors,
            numbers, texts and containers of them.
    """
    if not path.is_file():
        raise InputError(f"no checkpoint at {path}: give the path of a file")
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception:  # a damaged file can raise anything
        raise InputError(
            f"{path} cannot be read: it is truncated or damaged, or holds more than tensors; {mend}"
        ) from None
