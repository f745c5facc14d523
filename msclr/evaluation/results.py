"""The file of a result in the folder of its run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msclr.data.store import Store
from msclr.evaluation.run import Run


def keep_result(run: Run, store: Store, result: dict[str, Any], variant: Sequence[str]) -> None:
    """Write a result to the run's folder, in a file of its own for each data set and variant.

    ``evaluation/<protocol>-<layout>-<stream>-<encoder>.json`` is that of the run's own data by the
    protocol's defaults. Other data add their name and eight digits of the hash of their checksums;
    ``variant`` names the options that differ from the defaults.

    Where the file cannot be written, as on a read-only disk, the result gets a note.
    """
    parts = [result[key] for key in ("protocol", "layout", "stream", "encoder")]
    name = "-".join([*parts, *_data_suffix(run, store), *variant])
    path = run.folder / "evaluation" / f"{name}.json"
    try:
        path.parent.mkdir(exist_ok=True)
        _write_whole(path, json.dumps(result, indent=2) + "\n")
    except OSError as error:
        reason = error.strerror or error
        result["notes"].append(f"the result could not be kept in {path}: {reason}")


def _data_suffix(run: Run, store: Store) -> list[str]:
    checksums = store.meta["checksums"]
    if checksums == run.checksums:
        return []
    digest = hashlib.sha256(json.dumps(checksums, sort_keys=True).encode()).hexdigest()
    name = re.sub(r"[^\w.]+", "_", store.meta["name"])[:40]
    return [name, digest[:8]]


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
