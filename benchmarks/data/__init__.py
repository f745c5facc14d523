"""Benchmarks of reading, preparing and augmenting data, a topic a module.

    python -m benchmarks data [TOPIC [options]]     TOPIC: read, prepare, batches, step; all without

`python -m benchmarks data TOPIC --help` lists a topic's options.
"""

from __future__ import annotations

import sys
from importlib import import_module

TOPICS = ("read", "prepare", "batches", "step")


def main(argv: list[str]) -> None:
    topic, *options = argv or [""]
    if topic and topic not in TOPICS:
        sys.exit(f"usage: python -m benchmarks data [{{{','.join(TOPICS)}}} [options]]")
    for each in [topic] if topic else TOPICS:
        import_module(f"benchmarks.data.{each}").main(options)
