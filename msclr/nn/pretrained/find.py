"""Where in a checkpoint the weights of the encoder to read are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from msclr.errors import InputError
from msclr.nn.pretrained import pyskl, st_gcn

FIRST_KEYS = (st_gcn.FIRST_KEY, pyskl.FIRST_KEY)
QUERY = "encoder_q."
# entries that hold the trained weights, where another one holds their average or a teacher
_WEIGHTS = ("state_dict", "model_state_dict", "model")
_WRAPPERS = ("_orig_mod", "module")  # of torch.compile; of DistributedDataParallel and EMA
_DEPTH = 3


class Found(NamedTuple):
    """An encoder's tensors."""

    weights: dict[str, Tensor]  # by their names within the encoder
    keys: dict[str, str]  # the same names -> the keys of the checkpoint
    all_keys: tuple[Any, ...]  # of the dict that holds them
    of_pyskl: bool


def encoder_in(checkpoint: Mapping[Any, Any], encoder: str | None = None) -> Found:
    """The one encoder of a checkpoint, or its query encoder, or the one of that name.

    Raises:
        InputError: none, or several of which none can be preferred; the message names what is
            there.
    """
    state = _dict_with_encoders(checkpoint)
    keys = _tensors(state)
    prefix, of_pyskl = _prefix(_encoders(keys), encoder)
    own = {name.removeprefix(prefix): key for name, key in keys.items() if name.startswith(prefix)}
    weights = {name: state[key] for name, key in own.items()}
    return Found(weights, own, tuple(state), of_pyskl)


def _dict_with_encoders(checkpoint: Mapping[Any, Any]) -> Mapping[Any, Any]:
    held = dict(_dicts_with_encoders(checkpoint, (), _DEPTH))
    if not held:
        wanted = " or ".join(map(repr, FIRST_KEYS))
        raise InputError(
            f"the checkpoint holds {_contents(checkpoint)}: no tensor's key ends in {wanted}, so "
            "it has no ST-GCN"
        )
    preferred = [path for path in held if path and path[-1] in _WEIGHTS]
    if len(held) > 1 and len(preferred) != 1:
        names = ", ".join(repr(".".join(map(str, path))) for path in held)
        raise InputError(f"the checkpoint has encoders in {names}: give the one of these to read")
    return held[preferred[0] if len(held) > 1 else next(iter(held))]


def _dicts_with_encoders(
    state: Mapping[Any, Any], path: tuple[Any, ...], depth: int
) -> Iterator[tuple[tuple[Any, ...], Mapping[Any, Any]]]:
    if _encoders(_tensors(state)):
        yield path, state
    elif depth:
        for key, value in state.items():
            if isinstance(value, Mapping):
                yield from _dicts_with_encoders(value, (*path, key), depth - 1)


def _tensors(state: Mapping[Any, Any]) -> dict[str, str]:
    """Names of the tensors in a state_dict without the wrappers of modules, and their keys."""
    names: dict[str, str] = {}
    for key, value in state.items():
        if not isinstance(key, str) or not torch.is_tensor(value):
            continue
        name = ".".join(part for part in key.split(".") if part not in _WRAPPERS)
        if name in names:
            raise InputError(
                f"the checkpoint has both {names[name]!r} and {key!r}: give a dict with one of them"
            )
        names[name] = key
    return names


def _encoders(names: Mapping[str, str]) -> dict[str, bool]:
    """What comes before the names of each encoder, and whether that is pyskl's."""
    return {
        name.removesuffix(first): first == pyskl.FIRST_KEY
        for name in names
        for first in FIRST_KEYS
        if name == first or name.endswith(f".{first}")
    }


def _prefix(encoders: Mapping[str, bool], wanted: str | None = None) -> tuple[str, bool]:
    if wanted is not None:
        named = [prefix for prefix in encoders if f".{prefix}".endswith(f".{wanted}.")]
        if len(named) != 1:
            raise InputError(
                f"the checkpoint has the encoders {', '.join(map(repr, encoders))}, of which "
                f"{'none is' if not named else 'several are'} {wanted!r}"
            )
        return named[0], encoders[named[0]]
    queries = [prefix for prefix in encoders if f".{prefix}".endswith(f".{QUERY}")]
    best = queries or [*encoders]
    if len(best) > 1:
        names = ", ".join(map(repr, encoders))
        raise InputError(
            f"the checkpoint has several encoders, {names}, and "
            f"{'several end in' if queries else 'none is'} {QUERY!r}: give a dict of the keys of "
            "one"
        )
    return best[0], encoders[best[0]]


def _contents(state: Mapping[Any, Any]) -> str:
    """The first keys, and those of the dicts among what they hold."""
    some = [
        f"{key} ({_first_of(value)})" if isinstance(value, Mapping) else str(key)
        for key, value in state.items()
    ]
    return _first_of(some, 6)


def _first_of(names: Any, count: int = 3) -> str:
    some = ", ".join(map(str, list(names)[:count])) or "nothing"
    return some + (", …" if len(names) > count else "")
