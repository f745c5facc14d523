"""Prepared data sets: writing them, holding them on a device, augmenting them."""

from msclr.data.dataset import SkeletonDataset
from msclr.data.prepare import PrepareReport, prepare_arrays
from msclr.data.store import Store, open_store

__all__ = ["PrepareReport", "SkeletonDataset", "Store", "open_store", "prepare_arrays"]
