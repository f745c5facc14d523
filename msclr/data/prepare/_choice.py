"""Options of which one of a few words is wanted."""

from __future__ import annotations

from collections.abc import Sequence

from msclr.errors import InputError


def check_choice(value: str, what: str, choices: Sequence[str]) -> str:
    """The value, or InputError where it is none of the choices."""
    if value not in choices:
        raise InputError(f"{what} is {value!r}; choose one of {', '.join(choices)}")
    return value
