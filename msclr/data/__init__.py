"""Data sets: reading and preparing them, holding them on a device, augmenting them."""

from __future__ import annotations

import importlib

# Loaded on first use: reading clips and preparing data sets needs no torch, and processes that
# do only that start ten times faster without it.
_HOMES = {
    "MixedDataset": "mixed",
    "PrepareReport": "prepare",
    "Skeleton": "skeleton",
    "SkeletonDataset": "dataset",
    "Store": "store",
    "export_aimclr": "export",
    "export_pyskl": "export",
    "open_store": "store",
    "prepare_aimclr": "prepare",
    "prepare_arrays": "prepare",
    "prepare_ctrgcn": "prepare",
    "prepare_ntu": "prepare",
    "prepare_pyskl": "prepare",
    "read_skeleton": "skeleton",
    "read_skeletons": "skeleton",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
