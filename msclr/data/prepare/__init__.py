"""From raw clips to a prepared data set: one module for each kind of source."""

from __future__ import annotations

from msclr.data.prepare.arrays import prepare_arrays
from msclr.data.prepare.npz import read_npz
from msclr.data.prepare.report import PrepareReport, ViewReport

__all__ = ["PrepareReport", "ViewReport", "prepare_arrays", "read_npz"]
