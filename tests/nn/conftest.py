"""The benchmarks' plain ST-GCN is tested here: found also where pytest is not run by python -m."""

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:
    sys.path.append(ROOT)  # last, so that an installed msclr is not hidden
