"""Layouts by name: the shipped ones, read at first need, and those that users register."""

from __future__ import annotations

import tomllib
from functools import cache
from os import PathLike
from pathlib import Path

from msclr.errors import InputError
from msclr.layouts._check import did_you_mean
from msclr.layouts.layout import Layout
from msclr.paths import as_path


def get(name: str) -> Layout:
    """The layout of that name or alias, upper and lower case alike.

    Raises InputError for an unknown name, with the nearest one.
    """
    layout = _by_name().get(name.lower()) if isinstance(name, str) else None
    if layout is None:
        raise InputError(
            f"unknown layout {name!r}{did_you_mean(name, _by_name()) or ';'} "
            "msclr.layouts.names() lists all; your own come in by msclr.layouts.register"
        )
    return layout


def names() -> list[str]:
    """The names of all layouts, sorted, without their aliases."""
    return sorted({layout.name for layout in _by_name().values()})


def load(path: str | PathLike[str]) -> Layout:
    """Read a layout file, without registering it. `Layout` describes the keys:

        name = "my_robot"
        joints = ["base", "lhip", "rhip"]
        bones = [["lhip", "base"], ["rhip", "base"]]    # ["child", "parent"]
        center = "base"
        # optional: aliases = ["my-robot"], flip = [["lhip", "rhip"]], outside_graph = []

        [landmarks]    # optional: what other layouts can be derived from
        mid_hip = "base"
        lhip = "lhip"
        rhip = "rhip"
        pelvis = { base = 0.9, lhip = 0.05, rhip = 0.05 }

    Raises InputError, one line with the file, the key and the mend, for a wrong file.
    """
    try:
        text = as_path(path).read_text(encoding="utf-8-sig")  # Notepad writes a byte-order mark
        fields = tomllib.loads(text)
    except OSError as error:
        raise InputError(f"{path}: cannot read the layout file: {error.strerror}") from None
    except ValueError as error:  # TOML's errors and those of UTF-8
        raise InputError(f"{path}: not a TOML file: {error}") from None
    return Layout.from_dict(fields, source=str(path))


def register(layout: Layout) -> None:
    """Let `get` find the layout under its name and aliases.

    An equal layout may come again. Raises InputError, and registers nothing, where a different one
    holds the name or an alias.
    """
    _enter(_by_name(), layout)


@cache
def _by_name() -> dict[str, Layout]:
    """All layouts by lower-case name and alias. `register` adds to this one dictionary."""
    table: dict[str, Layout] = {}
    for file in sorted(Path(__file__).parent.glob("*.toml")):
        _enter(table, load(file))
    return table


def _enter(table: dict[str, Layout], layout: Layout) -> None:
    keys = [key.lower() for key in (layout.name, *layout.aliases)]
    for key in keys:
        if table.get(key, layout) != layout:
            raise InputError(
                f"cannot register {layout!r}: the name {key!r} belongs to a different layout, "
                f"{table[key]!r}; choose another"
            )
    table.update(dict.fromkeys(keys, layout))
