"""msclr bench"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from pathlib import Path

from msclr.cli._command import command
from msclr.errors import InputError


def add(commands) -> None:
    text = (
        "Run the benchmarks, ours against pure PyTorch. Without a name it lists them, and how long "
        "each takes; NAME --help lists the options of one."
    )
    tuned = (
        "find block sizes for this machine's GPU, and keep them where every later run takes them"
    )
    parser = command(commands, "bench", _bench, text)
    parser.add_argument("--tune", action="store_true", help=tuned)
    parser.add_argument("name", nargs="?", help="of a benchmark")
    text = "of the benchmark"
    parser.add_argument("options", nargs=argparse.REMAINDER, metavar="OPTION", help=text)


def _bench(arguments) -> int:
    benchmarks = _benchmarks()
    if arguments.tune:
        from benchmarks.tune import tune

        tune(print)
        return 0
    if not arguments.name:
        print(benchmarks.listing("msclr bench NAME [options]"))
        return 0
    given = [arguments.name, *arguments.options]
    if _installed().is_dir() and (arguments.name == "accuracy" or given == ["data"]):
        raise InputError(f"{arguments.name} needs a checkout: its files are in no wheel")
    asks = {"-h", "--help", "--out"}.intersection(word.split("=")[0] for word in given)
    if not asks and _installed().is_dir():
        # The default is a folder of the checkout.
        words = "_".join(word for word in given[:2] if not word.startswith("-"))
        given += ["--out", f"{words}-{datetime.now():%Y%m%d-%H%M%S}.json"]
    return benchmarks.main(given)


def _installed() -> Path:
    """Where a wheel has the package `benchmarks`, which its modules know by that name alone."""
    import msclr

    return Path(msclr.__file__).parent / "_benchmarks"


def _benchmarks():
    """`benchmarks.__main__`, of the wheel or of the checkout around the package."""
    folder = _installed() if _installed().is_dir() else _installed().parents[1]
    if not (folder / "benchmarks" / "__main__.py").is_file():
        raise InputError(
            f"there are no benchmarks in {folder}; install msclr from a wheel, or run in a checkout"
        )
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    from benchmarks import __main__

    return __main__
