"""Checks of options that are one of a few words, or a count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from msclr.errors import InputError


def want_one_of(value: str, what: str, choices: Sequence[str]) -> str:
    """The value, or InputError where it is none of the choices."""
    if value not in choices:
        raise InputError(f"{what} is {value!r}; choose one of {', '.join(choices)}")
    return value


def want_count(value: int, what: str) -> int:
    """The value, or InputError where it is no whole number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{what} is {value!r}; give a whole number from 1 on")
    return int(value)
