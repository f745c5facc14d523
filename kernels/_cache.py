"""Where the library keeps what it has found out about a machine."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def cache_folder() -> Path | None:
    """``$XDG_CACHE_HOME/msclr``, by default ``~/.cache/msclr``; None where there is no home."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):  # others are to be ignored, by the specification
        return Path(given) / "msclr"
    try:
        return Path.home() / ".cache" / "msclr"
    except RuntimeError:
        return None


def keep(path: Path, text: str) -> None:
    """Write a file to a temporary name, then rename it, so that no reader sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
