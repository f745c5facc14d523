"""Backends that qualify themselves on the machine at hand, before they become its defaults.

cases (``kernels/<op>/cases.py``) -> judge.py, timing.py (is it right, is it fast), in the process
of child.py, which children.py watches -> store.py (verdicts on disk) -> verdicts.py, ranks.py (what
runs).
"""

from msclr.kernels._qualify.verdicts import examine, prepare, stored, would_run

__all__ = ["examine", "prepare", "stored", "would_run"]
