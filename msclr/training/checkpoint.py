"""Checkpoints: whole or not at all, and read without running code from them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from msclr.errors import InputError
from msclr.files import read_tensors
from msclr.paths import as_path

FORMAT = 1
CHECKPOINT, RECIPE = "checkpoint.pt", "recipe.yaml"  # in the folder of a run


def checkpoint_of(source: str | Path) -> Path:
    """The path of a checkpoint: ``source`` itself, or that in it, the folder of a run.

    Raises InputError where there is none.
    """
    path = as_path(source)
    if not path.exists():
        raise InputError(f"no run at {path}: there is no such folder or checkpoint")
    if not path.is_dir():
        return path
    if not (path / CHECKPOINT).exists():
        begun = (path / RECIPE).exists()
        why = "its run has written none yet" if begun else "this is no run's folder"
        raise InputError(f"no checkpoint in {path}: {why}")
    return path / CHECKPOINT


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write to a temporary name, flush to the disk, then rename."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        torch.save({"format": FORMAT, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_checkpoint(path: Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """What :func:`save_checkpoint` wrote, read with ``weights_only=True``.

    Raises:
        InputError: no such file, truncated or damaged, or not a checkpoint of this library.
    """
    mend = "restore it from a copy, or start the run again in another folder"
    state = read_tensors(path, mend, map_location)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(f"{path} is not a checkpoint of this version (format {FORMAT})")
    return state
