"""Reading ``.skeleton`` files, with the compiled reader where it is built."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

from msclr.errors import InputError
from msclr.paths import as_path

from . import plain
from .clip import Skeleton, id_array, unreadable

logger = logging.getLogger(__name__)

try:
    from msclr.data import _skeleton_io as native
except ImportError as error:
    native = None
    logger.debug(".skeleton files are read in Python, the compiled reader is not here: %s", error)

Named = str | os.PathLike[str]  # a file as the caller names it, and so do messages
Outcome = Skeleton | InputError

_BATCH = 16  # files that a thread reads before it hands them over: one takes only 0.1 ms


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
        threads: that read at once (default: one per core).
        keep_going: yield the InputError of a file that cannot be read, in the place of its clip;
            else it is raised, which ends the reading.
        pixels: as in `read_skeleton`.
    """
    # Here and not in the generator, which begins when it is first asked for a clip: the working
    # folder may be another one by then.
    read = partial(_read, pixels=pixels, folder=Path.cwd())
    return _in_order(paths, read, threads or os.cpu_count() or 1, keep_going)


def _in_order(
    paths: Iterable[Named], read: Callable[[list[Named]], list[Outcome]], threads: int, go_on: bool
) -> Iterator[Outcome]:
    remaining = iter(paths)
    batches = iter(lambda: list(islice(remaining, _BATCH)), [])
    with ThreadPoolExecutor(threads) as pool:
        ahead = deque(pool.submit(read, batch) for batch in islice(batches, 2 * threads))
        while ahead:
            for clip in ahead.popleft().result():
                if isinstance(clip, InputError) and not go_on:
                    raise clip
                yield clip
            ahead.extend(pool.submit(read, batch) for batch in islice(batches, 1))


def _read(paths: list[Named], pixels: bool, folder: Path = Path()) -> list[Outcome]:
    """The clips in `paths`, taken from `folder` where they are relative."""
    places = [folder / as_path(path) for path in paths]
    if native is None:
        named = zip(places, paths, strict=True)
        return [_read_in_python(place, path, pixels) for place, path in named]
    results = native.read([os.fsencode(place) for place in places], pixels)
    return [_clip(result, path) for result, path in zip(results, paths, strict=True)]


def _read_in_python(place: Path, path: Named, pixels: bool) -> Outcome:
    try:
        return plain.parse(place.read_bytes(), os.fsdecode(path), pixels)
    except OSError as error:
        return _clip(error.errno, path)
    except InputError as error:
        return error


def _clip(result: tuple | str | int, path: Named) -> Outcome:
    """A clip out of the compiled reader's arrays, its refusal or the system's error number."""
    if isinstance(result, str):
        line, reason = result.split(": ", 1)
        return unreadable(os.fsdecode(path), int(line), reason)
    if isinstance(result, int):
        reason = f"{os.strerror(result)}; wanted a .skeleton file"
        return unreadable(os.fsdecode(path), 0, reason)
    ids, *arrays = result
    return Skeleton(id_array(ids), *arrays)
