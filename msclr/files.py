"""Files that are written whole, and files of tensors, read without running code from them."""

from __future__ import annotations

import os
import pickle
import pickletools
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msclr.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path next to ``path`` to write to, which takes its name at the end, or is removed.

    Raises:
        InputError: what the system refuses.
    """
    partial = path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; choose another file"
        ) from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def require_writable(path: Path) -> None:
    """Raise InputError where no file can be written at a path, before the work that it is for."""
    folder = next(x for x in path.absolute().parents if x.exists())
    if not folder.is_dir():
        raise InputError(f"cannot write {path}: {folder} is no folder; choose another file")
    if not os.access(folder, os.W_OK):
        raise InputError(f"cannot write {path}: {folder} is read-only; choose another file")


def read_tensors(path: Path, mend: str, map_location: str | torch.device = "cpu") -> Any:
    """What ``torch.save`` wrote, with ``weights_only=True``; ``mend`` ends the error's message.

    Tensors, numbers, NumPy's among them, texts and containers of these are read.

    Raises:
        InputError: no such file, truncated or damaged, or with other things than those.
    """
    if not path.is_file():
        folder = "a folder" if path.is_dir() else "no checkpoint"
        raise InputError(f"{folder} at {path}: give the path of a file")
    try:
        return _load(path, map_location)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged file can raise anything
        raise InputError(f"{path} cannot be read: {_fault(path, error)}; {mend}") from None


def _load(path: Path, map_location: str | torch.device) -> Any:
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError:  # NumPy's numbers, where the program has not admitted its own
        with torch.serialization.safe_globals(_NUMPY_NUMBERS):
            return torch.load(path, map_location=map_location, weights_only=True)


class _Dtype:
    """What a pickle says of the type of a NumPy number.

    It replaces ``numpy.dtype``, which trusts the state in a pickle: a forged one makes NumPy
    read from any address.
    """

    def __init__(self, code: str, align: bool = False, copy: bool = True):
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]


def _number(dtype: _Dtype, data: bytes) -> np.generic:
    """As ``numpy.core.multiarray.scalar``, for numbers and truth values only."""
    if not re.fullmatch(r"[biufc]\d+", dtype.code) or dtype.order not in ("<", ">", "=", "|"):
        raise InputError(f"it holds a NumPy value of type {dtype.code!r}, which is no number")
    return np.frombuffer(data, dtype.order + dtype.code)[0]


_NUMPY_NUMBERS = [
    (_Dtype, "numpy.dtype"),
    (_number, "numpy.core.multiarray.scalar"),  # NumPy 1
    (_number, "numpy._core.multiarray.scalar"),  # NumPy 2
]


def _fault(path: Path, error: Exception) -> str:
    """Why a file could not be read, as far as it shows."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.filename:  # not one of reading: that is damage
        return error.strerror
    if "TorchScript" in str(error):
        return "it is a TorchScript archive, wanted tensors alone"
    refused = re.findall(r"GLOBAL (\S+) ", str(error))
    if not refused:
        return "it is truncated or damaged, or no file of torch.save"
    asked = {*refused, *_unread_classes(path)}
    # torch's own classes say the least about what was saved
    named = sorted(asked, key=lambda name: (name.startswith("torch."), name))
    some = ", ".join(named[:3]) + (", …" if len(named) > 3 else "")
    if any(name.startswith("torch.nn.") for name in asked):
        return f"it holds a whole pickled model ({some}), wanted its tensors alone"
    return f"it holds more than tensors, numbers and texts ({some}), and making those runs code"


def _unread_classes(path: Path) -> set[str]:
    """Full names of the classes and functions that a file asks for and that are not read."""
    try:
        with torch.serialization.safe_globals(_NUMPY_NUMBERS):
            return set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except ValueError:  # no zip file, so of the form before PyTorch 1.6
        return _layers_in_pickles(path)


def _layers_in_pickles(path: Path) -> set[str]:
    """Names of torch's layers in the pickles that an old file begins with, the fourth its object.

    None of them is read otherwise, and they tell a model from other objects.
    """
    names: set[str] = set()
    with path.open("rb") as file, suppress(ValueError):  # torn within a pickle
        for _ in range(4):
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "GLOBAL" and argument.startswith("torch.nn."):
                    names.add(argument.replace(" ", "."))
    return names
