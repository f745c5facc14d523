"""Where the library keeps what it has found out about a machine."""

from __future__ import annotations

import os
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
