"""Prepared data sets: writing them, holding them on a device, augmenting them."""

from __future__ import annotations

import importlib

# Loaded when first asked for: to read clips and prepare data sets torch is not needed, and the
# processes that do so start in a tenth of the time without it.
_HOMES = {
    "PrepareReport": "prepare",
    "SkeletonDataset": "dataset",
    "Store": "store",
    "open_store": "store",
    "prepare_arrays": "prepare",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
