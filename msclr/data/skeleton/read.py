"""Reading ``.skeleton`` files, with the compiled reader where it is built."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from msclr.errors import InputError

from . import plain
from .clip import Skeleton, id_array

logger = logging.getLogger(__name__)

try:
    from msclr.data import _skeleton_io as native
except ImportError as error:
    native = None
    logger.debug(".skeleton files are read in Python, the compiled reader is not here: %s", error)

_BATCH = 16  # files that a thread reads before others learn of it: one takes it but 0.1 ms


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
    (clip,) = _read([path], pixels)
    if isinstance(clip, InputError):
        raise clip
    return clip


def parse_skeleton(data: bytes, name: str, *, pixels: bool = False) -> Skeleton:
    """`read_skeleton` for a file in memory, say one out of a zip; ``name`` is for messages."""
    if native is None:
        return plain.parse(data, name, pixels)
    clip = _clip(native.parse(data, pixels), name)
    if isinstance(clip, InputError):
        raise clip
    return clip


def read_skeletons(
    paths: Iterable[str | os.PathLike[str]],
    *,
    threads: int | None = None,
    keep_going: bool = False,
    pixels: bool = False,
) -> Iterator[Skeleton | InputError]:
    """Read many ``.skeleton`` files, in the order given; a few are read ahead, never all.

    Args:
        paths: the files.
        threads: that read at once (default: one a core).
        keep_going: yield the InputError of a file that cannot be read, in the place of its clip;
            else it is raised, which ends the reading.
        pixels: as in `read_skeleton`.
    """
    threads = threads or os.cpu_count() or 1
    remaining = iter(paths)
    batches = iter(lambda: list(islice(remaining, _BATCH)), [])
    with ThreadPoolExecutor(threads) as pool:
        ahead = deque(pool.submit(_read, batch, pixels) for batch in islice(batches, 2 * threads))
        while ahead:
            for clip in ahead.popleft().result():
                if isinstance(clip, InputError) and not keep_going:
                    raise clip
                yield clip
            ahead.extend(pool.submit(_read, batch, pixels) for batch in islice(batches, 1))


def _read(paths: list[str | os.PathLike[str]], pixels: bool) -> list[Skeleton | InputError]:
    if native is None:
        return [_read_in_python(path, pixels) for path in paths]
    results = native.read([os.fsencode(path) for path in paths], pixels)
    return [_clip(result, path) for result, path in zip(results, paths, strict=True)]


def _read_in_python(path: str | os.PathLike[str], pixels: bool) -> Skeleton | InputError:
    try:
        with open(path, "rb") as file:
            return plain.parse(file.read(), os.fsdecode(path), pixels)
    except OSError as error:
        return _clip(error.errno, path)
    except InputError as error:
        return error


def _clip(result: tuple | str | int, path: str | os.PathLike[str]) -> Skeleton | InputError:
    """A clip out of the compiled reader's arrays, its refusal or the system's error number."""
    if isinstance(result, str):
        return InputError(f"{os.fsdecode(path)}:{result}")
    if isinstance(result, int):
        return InputError(f"{os.fsdecode(path)}: {os.strerror(result)}; wanted a .skeleton file")
    ids, *arrays = result
    return Skeleton(id_array(ids), *arrays)
