"""Block sizes of Triton kernels: a rule per kernel, a table per capability, and the user's own.

Each launch module computes the blocks of a call by a rule. What was found better than a rule on
some GPU is named here by the rule's own choice, so no launch has to know of it. Nothing is tuned
unasked: other blocks add numbers up in another order, and a run would not repeat itself.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from msclr.kernels._cache import cache_folder, keep

Sizes = Mapping[str, Mapping[str, Mapping[str, int]]]  # kernel -> the rule's choice -> the better

# Of each capability. Empty until a GPU has measured something.
SHIPPED: dict[str, Sizes] = {"sm_80": {}, "sm_90": {}}

logger = logging.getLogger(__name__)


def tunable(kernel: str) -> Callable:
    """Decorate a rule: a function that returns blocks, some of which a table may replace."""

    def decorate(rule: Callable[..., dict[str, int]]) -> Callable[..., dict[str, int]]:
        @functools.wraps(rule)
        def chosen(*given, **named) -> dict[str, int]:
            blocks = rule(*given, **named)
            better = sizes().get(kernel)
            return blocks if better is None else blocks | better.get(choice(blocks), {})

        return chosen

    return decorate


def choice(blocks: Mapping[str, int]) -> str:
    """How tables name what a rule chose: its numbers, in the order of their names."""
    return ",".join(f"{name}={value}" for name, value in sorted(blocks.items()))


@functools.cache
def sizes() -> Sizes:
    """What replaces the rules' choices on this machine's GPU."""
    return SHIPPED.get(_capability(), {}) | _own().get(_capability(), {})


def block_sizes_hash() -> str:
    """A short text that differs where block sizes do; "" where the rules alone decide."""
    found = sizes()
    if not any(found.values()):
        return ""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:12]


def own_file() -> Path | None:
    """The user's table: ``$XDG_CACHE_HOME/msclr/block_sizes.json``, capability -> sizes."""
    folder = cache_folder()
    return None if folder is None else folder / "block_sizes.json"


def save_own(found: Sizes) -> Path:
    """Put sizes of this machine's GPU into the user's table; those of other GPUs stay."""
    path = own_file()
    if path is None:
        raise OSError("there is no home folder to keep block sizes in; set XDG_CACHE_HOME")
    keep(path, json.dumps({**_own(), _capability(): found}, indent=1))
    sizes.cache_clear()
    return path


def _own() -> Mapping[str, Sizes]:
    path = own_file()
    if path is None or not path.is_file():
        return {}
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        if not _is_table(read):
            raise ValueError("it is no table of capability, kernel, choice and blocks")
    except (OSError, ValueError) as error:
        logger.warning("%s is not used: %s; remove it, or write it again", path, error)
        return {}
    return read


def _is_table(read: object, depth: int = 4) -> bool:
    if depth == 0:
        return type(read) is int and read > 0
    return isinstance(read, dict) and all(_is_table(v, depth - 1) for v in read.values())


def _capability() -> str:
    if not torch.cuda.is_available():
        return ""
    return "sm_{}{}".format(*torch.cuda.get_device_capability())
