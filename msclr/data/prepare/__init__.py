"""From raw clips to a prepared data set: one module for each kind of source."""

from __future__ import annotations

from msclr.data.prepare.aimclr import prepare_aimclr
from msclr.data.prepare.arrays import prepare_arrays
from msclr.data.prepare.ctrgcn import prepare_ctrgcn
from msclr.data.prepare.npz import read_npz
from msclr.data.prepare.ntu import prepare_ntu
from msclr.data.prepare.pyskl import prepare_pyskl
from msclr.data.prepare.report import PrepareReport, ViewReport

__all__ = [
    "PrepareReport",
    "ViewReport",
    "prepare_aimclr",
    "prepare_arrays",
    "prepare_ctrgcn",
    "prepare_ntu",
    "prepare_pyskl",
    "read_npz",
]
