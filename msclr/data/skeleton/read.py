"""Reading ``.skeleton`` files, with the compiled reader where it is built."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Literal

from msclr.errors import InputError

from . import plain
from .clip import Skeleton, id_array

logger = logging.getLogger(__name__)

try:
    from msclr.data import _skeleton_io as native
except ImportError as error:
    native = None
    logger.debug(".skeleton files are read in Python, the compiled reader is not here: %s", error)

_Refused = native.Refused if native else ()  # the compiled reader's; nothing where it is not here


def read_skeleton(path: str | os.PathLike[str], *, pixels: bool = False) -> Skeleton:
    """Read one ``.skeleton`` file of NTU RGB+D.

    Args:
        path: the file.
        pixels: also read where each joint lies in the depth and colour pictures.

    Returns:
        Its bodies: arrays over (P, T, V), see `Skeleton`. A file without bodies has P = 0.

    Raises:
        InputError: ``FILE:LINE: what came; what was wanted`` where the file breaks the format
            (`msclr.data.skeleton`): truncated, a joint count other than 25, a field that is no
            number, a body twice in a frame, text after the last frame. Also where it cannot be
            opened.
    """
    try:
        if native is None:
            with open(path, "rb") as file:
                return plain.parse(file.read(), os.fsdecode(path), pixels)
        return _skeleton(native.read(os.fsencode(path), pixels))
    except OSError as error:
        name = os.fsdecode(path)
        raise InputError(f"{name}: {error.strerror}; wanted a .skeleton file") from error
    except _Refused as error:
        raise InputError(f"{os.fsdecode(path)}:{error}") from None


def parse_skeleton(data: bytes, name: str, *, pixels: bool = False) -> Skeleton:
    """`read_skeleton` for a file in memory, say one out of a zip; ``name`` is for messages."""
    if native is None:
        return plain.parse(data, name, pixels)
    try:
        return _skeleton(native.parse(data, pixels))
    except _Refused as error:
        raise InputError(f"{name}:{error}") from None


def read_skeletons(
    paths: Iterable[str | os.PathLike[str]],
    *,
    threads: int | None = None,
    errors: Literal["raise", "yield"] = "raise",
    pixels: bool = False,
) -> Iterator[Skeleton | InputError]:
    """Read many ``.skeleton`` files, in the order given; a few are read ahead, never all.

    Args:
        paths: the files.
        threads: that read at once (default: as many as there are cores for this process).
        errors: what becomes of a file that cannot be read: its InputError is raised, which ends
            the reading, or yielded in the place of the clip.
        pixels: as in `read_skeleton`.
    """

    def read(path: str | os.PathLike[str]) -> Skeleton | InputError:
        try:
            return read_skeleton(path, pixels=pixels)
        except InputError as error:
            return error

    threads = threads or len(os.sched_getaffinity(0))
    remaining = iter(paths)
    with ThreadPoolExecutor(threads) as pool:
        ahead = deque(pool.submit(read, path) for path in islice(remaining, 4 * threads))
        while ahead:
            clip = ahead.popleft().result()
            ahead.extend(pool.submit(read, path) for path in islice(remaining, 1))
            if isinstance(clip, InputError) and errors == "raise":
                raise clip
            yield clip


def _skeleton(read: tuple) -> Skeleton:
    ids, *arrays = read
    return Skeleton(id_array(ids), *arrays)
