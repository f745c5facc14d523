"""Layouts as options name them: ``a,b``, given again, or a ``.toml`` file."""

from __future__ import annotations

from collections.abc import Iterable

from msclr.errors import InputError
from msclr.layouts import Layout
from msclr.paths import as_path

HELP = "one or more, as a,b or repeated, each a name or a .toml file"


def layout_of(text: str) -> Layout:
    """A layout by its name, or one of the user's own from a file, which is then known by name."""
    from msclr import layouts

    if not text.endswith(".toml"):
        return layouts.get(text)
    layout = layouts.load(as_path(text))
    layouts.register(layout)
    return layout


def layout_names(given: Iterable[str]) -> list[str]:
    """The names of what was given; those that no file gives may be of the data or run alone.

    Raises InputError for options that name none.
    """
    given = list(given)
    names = [name.strip() for text in given for name in text.split(",") if name.strip()]
    if given and not names:
        raise InputError(f"--layout is {given[0]!r} and names none; give a layout, or leave it out")
    return [layout_of(name).name if name.endswith(".toml") else name for name in names]
