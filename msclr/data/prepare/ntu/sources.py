"""Where the `.skeleton` files are: in folders or in zip archives, which are read in place."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from msclr.data.skeleton import Skeleton, parse_skeleton, read_skeleton
from msclr.errors import InputError
from msclr.paths import as_path

_ENDING = ".skeleton"
NO_FILE = -1, -1  # the stamp of a folder, a pipe or a link that leads nowhere
_NAME = re.compile(r"(S\d{3}C\d{3}P\d{3}R\d{3}A\d{3})\.skeleton", re.ASCII)
# What zipfile raises for damaged, encrypted and unknown kinds of members.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)


class ClipFile(NamedTuple):
    """One clip: the file `path`, or the member `member` of the zip `path`.

    stamp: changes with the content: size, and time of the last change or checksum in the zip.
    """

    name: str
    path: str
    member: str | None
    stamp: tuple[int, int]

    @property
    def place(self) -> str:
        return self.path if self.member is None else f"{self.path}/{self.member}"


def find_clips(skeletons: str | os.PathLike | Iterable[str | os.PathLike]) -> list[ClipFile]:
    """All clips in a folder and its subfolders, in a .zip, or in several of them, sorted by name.

    Links to folders are not followed, and zips within a folder are not opened.
    Clips are the files named SsssCcccPpppRrrrAaaa.skeleton, a folder before it with either slash.
    Raises InputError where a source is
    neither, cannot be read or holds none, and where a clip is there twice.
    """
    sources = [skeletons] if isinstance(skeletons, str | os.PathLike) else list(skeletons)
    if not sources:
        raise InputError("there is no folder of skeletons; give at least one folder or .zip file")
    found: list[ClipFile] = []
    for source in (as_path(source).absolute() for source in sources):
        clips = _in_folder(source) if source.is_dir() else _in_zip(source)
        if not clips:
            raise InputError(
                f"{source} holds no clip; wanted files named like S001C001P001R001A001{_ENDING}"
            )
        found += clips
    found.sort(key=lambda clip: (clip.name, clip.place))
    for one, other in pairwise(found):
        if one.name == other.name:
            raise InputError(
                f"{one.name} is there twice: {one.place} and {other.place}; keep one of them"
            )
    return found


def _in_folder(folder: Path) -> list[ClipFile]:
    clips, left = [], [os.fspath(folder)]
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    if match := _NAME.fullmatch(_last_part(entry.name)):
                        stamp = NO_FILE
                        if entry.is_file():
                            state = entry.stat()
                            stamp = state.st_size, state.st_mtime_ns
                        clips.append(ClipFile(match[1], entry.path, None, stamp))
                    elif entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
        except OSError as error:
            raise InputError(
                f"{error.filename or folder} cannot be read: {error.strerror}"
            ) from None
    return clips


def _in_zip(path: Path) -> list[ClipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give a folder or a .zip of skeletons") from None
    except (OSError, *_ZIP_ERRORS) as error:
        raise InputError(f"{path} is no folder and no .zip that can be read ({error})") from None
    clips = []
    for member in members:
        if match := _NAME.fullmatch(_last_part(member.filename)):
            stamp = member.file_size, member.CRC
            clips.append(ClipFile(match[1], os.fspath(path), member.filename, stamp))
    return clips


def _last_part(name: str) -> str:
    """Of a path with either slash: some zips of Windows hold backslashes, and so do the names of
    files that were unpacked from them elsewhere."""
    return name.replace("\\", "/").rpartition("/")[2]


class ClipReader:
    """Reads clips one by one; zips stay open until the block ends."""

    def __init__(self) -> None:
        self._archives: dict[str, zipfile.ZipFile] = {}

    def __enter__(self) -> ClipReader:
        return self

    def __exit__(self, *_: object) -> None:
        for archive in self._archives.values():
            archive.close()

    def read(self, clip: ClipFile) -> Skeleton:
        """Raises InputError for a file that cannot be read or breaks the format."""
        if clip.stamp == NO_FILE:
            raise InputError("no file, or a link to none")
        if clip.member is None:
            return read_skeleton(clip.path)
        try:
            data = self._unpacked(clip)
        except _ZIP_ERRORS as error:
            raise InputError(f"cannot be unpacked ({error})") from None
        return parse_skeleton(data, clip.member)

    def _unpacked(self, clip: ClipFile) -> bytes:
        if clip.path not in self._archives:
            self._archives[clip.path] = zipfile.ZipFile(clip.path)
        return self._archives[clip.path].read(clip.member)
