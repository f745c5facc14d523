"""``python -m benchmarks NAME [options]``; ``python -m benchmarks NAME --help`` says which."""

from __future__ import annotations

import sys
from importlib import import_module

NAMES = ("data", "graph_conv", "info_nce", "multi_view", "stgcn", "toy_supervised")


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        sys.exit(f"usage: python -m benchmarks {{{','.join(NAMES)}}} [options]")
    import_module(f"benchmarks.{sys.argv[1]}").main(sys.argv[2:])


if __name__ == "__main__":
    main()
