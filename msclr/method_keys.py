"""Which keys of a recipe a method reads; one that it does not read is refused, not ignored."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from msclr.errors import InputError

_MOMENTUM = {"pairs", "queue_size", "queue_precision", "key_momentum"}

READS = {
    "skeletonclr": _MOMENTUM | {"stream"},
    "aimclr": _MOMENTUM | {"stream", "mining_epoch", "mining_top_k"},
    "crossclr": _MOMENTUM | {"cross_epoch", "mining_top_k", "context"},
    "multiview": {"stream", "negatives", "queue_size", "queue_precision"},
}
# Where a method's own default is another than the recipe's.
DEFAULTS: dict[str, dict[str, Any]] = {"multiview": {"queue_size": 0}}
DEFAULT_METHOD = "aimclr"
_EXTREME = {"aimclr"}  # methods with an extreme view
_OF_ALL_VIEWS = {"shear", "crop"}  # augmentations; the others are of the extreme view


def unread(method: str) -> set[str]:
    """The keys that other methods read and this one does not."""
    return set().union(*READS.values()) - READS.get(method, set())


def readable(values: Mapping[str, Any], method: str | None = None) -> dict[str, Any]:
    """Values of a recipe that another is made of, less what its ``method`` has no use for.

    If the method changes, its defaults win over the values too. None: the values' method.
    """
    own = values.get("method", DEFAULT_METHOD)
    method = own if method is None else method
    drop = unread(method) | (DEFAULTS.get(method, {}).keys() if method != own else set())
    kept = {key: value for key, value in values.items() if key not in drop}
    if method not in _EXTREME and isinstance(kept.get("augment"), dict):
        kept["augment"] = {k: v for k, v in kept["augment"].items() if k in _OF_ALL_VIEWS}
    return kept


def check_keys(
    source: str, values: Mapping[str, Any], defaults: Mapping[str, Any], asked: Collection[str] = ()
) -> None:
    """Raise InputError for keys that do not fit the method, or the optimiser.

    A key that the method does not read may have its default, as in a recipe that was saved whole,
    or be None, which switches it off. Of those ``asked`` for by the command, none may be there.
    """
    method = values.get("method", DEFAULT_METHOD)
    for key in sorted(unread(method) & values.keys()):
        if key in asked or values[key] not in (defaults[key], None):
            readers = ", ".join(name for name in READS if key in READS[name])
            raise InputError(
                f"{source}: method {method} does not read {key}, got {values[key]!r}; leave it "
                f"out, or choose a method that does: {readers}"
            )
    for name, strength in values.get("augment", {}).items():
        others = method not in _EXTREME and name not in _OF_ALL_VIEWS
        if others and strength != defaults["augment"][name]:
            raise InputError(
                f"{source}: augment: {name} is of extreme views, which method {method} has none "
                "of; leave it out, or choose method=aimclr"
            )
    size = values.get("queue_size", defaults["queue_size"])
    if size < 1 and method != "multiview":
        raise InputError(f"{source}: queue_size must be at least 1, got {size}")
    mined = values.get("mining_top_k", 1)
    if mined > size and "mining_top_k" in READS.get(method, ()):
        raise InputError(f"{source}: mining_top_k is {mined}, but the queue holds {size} keys")
    if values.get("nesterov") and values.get("optimizer", "sgd") != "sgd":
        raise InputError(f"{source}: nesterov is of optimizer=sgd, got {values['optimizer']!r}")
