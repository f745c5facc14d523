"""What tests need of a machine, or are skipped."""

from __future__ import annotations

import pytest

from msclr import kernels

_PROBLEM = kernels.backends()["cpu"]
needs_operators = pytest.mark.skipif(bool(_PROBLEM), reason=f"no compiled operators: {_PROBLEM}")
