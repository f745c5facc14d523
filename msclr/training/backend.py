"""What a run's operators run on: the recipe's backend, or what qualified on the device."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from msclr import kernels
from msclr.errors import InputError

AUTO = "auto"

logger = logging.getLogger(__name__)


@contextmanager
def running_on(backend: str, device: torch.device, group: object | None = None) -> Iterator[None]:
    """Within, operators run on a recipe's backend; "auto" leaves it to the environment variable
    MSCLR_BACKEND, or to what qualified on the device, which is decided where it is not known yet.

    Args:
        backend: a recipe's.
        device: of the run.
        group: of the run's processes, all of which call this.

    Raises:
        InputError: the backend cannot run here, or takes no tensors on the device.
    """
    prepare_kernels(backend, device, group)
    if backend == AUTO:
        yield
        return
    with kernels.use_backend(backend):
        yield


def prepare_kernels(backend: str, device: torch.device, group: object | None = None) -> None:
    """Check a recipe's backend, and decide what else runs on the device where that is not known."""
    asked = os.environ.get("MSCLR_BACKEND", "") if backend == AUTO else backend
    try:
        kernels.check_override(asked, device)
        if asked != "reference":
            kernels.prepare(device, group=group)
    except ValueError as error:
        raise InputError(str(error)) from None


def fitting(backend: str, device: torch.device) -> str:
    """A recipe's backend where it can run on another device than the recipe's, else "auto"."""
    try:
        kernels.check_override(backend, device)
    except ValueError:
        return AUTO
    return backend


def describe_kernels() -> dict[str, Any]:
    """What a checkpoint keeps of the kernels that it was trained with."""
    return {"block_sizes": kernels.block_sizes_hash()}


def check_kernels(state: dict[str, Any], path: Path) -> None:
    """Warn where kernels were tuned since a checkpoint: sums then differ in their last digits."""
    then, now = state.get("block_sizes", ""), kernels.block_sizes_hash()
    if then != now:
        logger.warning(
            "%s was trained with block sizes %s, here they are %s: the run does not go on bit for "
            "bit",
            path,
            then or "by rule",
            now or "by rule",
        )
