"""One value of a recipe: from text to the kind of its key, and within its range."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import Field
from typing import Any

from msclr.errors import InputError
from msclr.recipe_keys import ANCHOR, AUGMENTATIONS

_NOTHING = ("null", "~", "none")  # texts for None
_TRUTH = {"true": True, "false": False}
_SWITCH = {"on": True, "off": False, **_TRUTH}  # as YAML 1.1 has it
_SHARES = ("crop", "flip", "axis")
_LEAST_BLUR = 0.1  # frames; the standard deviation is drawn from it to the largest


def parse_augment(given: Any) -> Any:
    """{name: text} of ``shear=0.3,noise=off``; anything else as it is."""
    if not isinstance(given, str):
        return given
    parts = [part.partition("=") for part in given.split(",")]
    return {name.strip(): value.strip() if equals else None for name, equals, value in parts}


def check_value(source: str, f: Field, value: Any) -> Any:
    """The value in the kind of a field, or InputError."""
    kind, key, given = str(f.type), f.name, value
    value = None if value is None else _by_kind(kind, value)
    if value is None:
        if "None" in kind:
            return None
    elif kind.startswith("dict"):
        return _augment(source, key, value)
    elif "list" in kind:
        item = str if "str" in kind else int
        several = isinstance(value, list)
        whole = all(type(v) is item and v != "" for v in (value if several else [value]))
        if whole and (value or item is int):
            single = kind.startswith("str") and several and len(value) == 1
            return value[0] if single else value
    elif kind == "bool":
        truth = _TRUTH.get(str(value).lower())
        if truth is not None:
            return truth
    elif kind.startswith("int"):
        if isinstance(value, int) and not isinstance(value, bool):
            return _in_range(source, f, value)
    elif kind.startswith("float"):
        number = _number(value)
        if number is not None:
            return _in_range(source, f, number)
    elif isinstance(value, str):
        return _chosen(source, f, value)
    raise InputError(f"{source}: {key} must be {kind}, got {given!r}")


def _by_kind(kind: str, value: Any) -> Any:
    """A text as the kind of its key says; unchanged where it is of another, to be refused."""
    if isinstance(value, str) and "None" in kind and value.lower() in _NOTHING:
        return None
    if not kind.startswith("list"):
        return _whole(value) if kind.startswith("int") else value
    if isinstance(value, str):
        value = [x.strip() for x in value.split(",")]  # layouts=a,b
    value = value if isinstance(value, list) else [value]
    return [_whole(x) for x in value] if "int" in kind else value


def _whole(value: Any) -> Any:
    """The decimal number that a text holds; YAML would read 010 as 8."""
    try:
        return int(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _number(value: Any) -> float | None:
    """A finite float, also from text."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None


def _in_range(source: str, f: Field, value: float) -> float:
    least, most, above = (f.metadata[name] for name in ("least", "most", "above"))
    if most < math.inf and not least <= value <= most:
        raise InputError(f"{source}: {f.name} must lie in {least}..{most}, got {value}")
    if not value > above:
        raise InputError(f"{source}: {f.name} must be positive, got {value}")
    if value < least:
        wanted = f"at least {least}" if least else "not negative"
        wanted = f"be {wanted}" if least else "not be negative"
        raise InputError(f"{source}: {f.name} must {wanted}, got {value}")
    return value


def _chosen(source: str, f: Field, value: str) -> str:
    choices = f.metadata["choices"]
    if not choices or value in choices:
        return value
    if f.name == "pairs":
        if value.startswith(ANCHOR) and value != ANCHOR:
            return value
        choices = (*choices, f"{ANCHOR}LAYOUT")
    raise InputError(f"{source}: {f.name} must be one of {', '.join(choices)}, got {value!r}")


def _augment(source: str, key: str, given: Any) -> dict[str, float]:
    """Strengths of all augmentations, those that are not given as in the papers."""
    given = parse_augment(given)
    if not isinstance(given, Mapping):
        raise InputError(f"{source}: {key} must be NAME=STRENGTH,NAME=off,.., got {given!r}")
    out = dict(AUGMENTATIONS)
    for name, value in given.items():
        if name not in out:
            close = difflib.get_close_matches(str(name), out, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(out)}"
            raise InputError(f"{source}: {key} has no {name!r}; {hint}")
        out[name] = _strength(f"{source}: {key}: {name}", name, value)
    return out


def _strength(where: str, name: str, value: Any) -> float:
    switch = _SWITCH.get(str(value).lower())
    if switch is not None:
        return AUGMENTATIONS[name] if switch else 0.0
    number = _number(value)
    most = 1.0 if name in _SHARES else 180.0 if name == "rotation" else math.inf
    if number is None or not 0 <= number <= most:
        wanted = f"a number in 0..{most:g}" if most < math.inf else "a number from 0 on"
        raise InputError(f"{where} must be {wanted}, on or off, got {value!r}")
    if name == "blur" and 0 < number < _LEAST_BLUR:
        raise InputError(f"{where} must be off, or at least {_LEAST_BLUR} frames, got {value!r}")
    return number
