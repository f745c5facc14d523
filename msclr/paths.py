"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path


def as_path(path: str | os.PathLike[str]) -> Path:
    """The path with a leading ``~`` expanded, as a shell would have done unquoted.

    The home of a user who is not known stays as it is written, as in a shell.
    """
    return Path(os.path.expanduser(path))
