"""`AtomicFolder`: what a command makes is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from msclr.data._store_files import require_free
from msclr.errors import InputError
from msclr.paths import as_path


class AtomicFolder:
    """A folder `path` next to `out`, in which is made what `finish` moves there.

    name: of the folder. Raises InputError where `out` exists and is not an empty folder.
    """

    def __init__(self, out: str | os.PathLike[str], name: str) -> None:
        require_free(out)
        self.out = as_path(out).resolve()
        self.path = self.out.parent / name
        parents = [self.out.parent, *self.out.parent.parents]
        self._made_parents = [parent for parent in parents if not parent.exists()]

    @contextlib.contextmanager
    def making(self):
        """Within the block the folder is made; what the system refuses is an InputError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            self.discard()
            raise InputError(
                f"cannot write to {self.out.parent}: {error.strerror or error}; "
                "choose another folder"
            ) from error

    def finish(self, result: Path | None = None) -> None:
        """Move the folder, or the one called `result` within it, to `out`."""
        require_free(self.out)  # again: making it takes a while
        if self.out.exists():
            self.out.rmdir()  # empty; some systems do not rename onto it
        os.rename(result or self.path, self.out)
        shutil.rmtree(self.path, ignore_errors=True)

    def discard(self) -> None:
        """Remove the folder, and those above it that were made for it."""
        shutil.rmtree(self.path, ignore_errors=True)
        for parent in self._made_parents:
            with contextlib.suppress(OSError):  # not made after all, or in use by others by now
                parent.rmdir()
