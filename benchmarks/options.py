"""The options of benchmarks, and what is wrong with them in one line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import torch

from msclr import kernels
from msclr.errors import InputError

# Options that choose how something is measured; all others choose what.
SETTINGS = ("device", "dtype", "backend", "compile", "precision")
FLOATS = ("float32", "bfloat16", "float16", "float64")
BACKENDS = ("reference", "cpu", "triton", "cuda")
ONLY_ON = {"cpu": "cpu", "triton": "cuda", "cuda": "cuda"}  # backend -> device


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise InputError(f"{message} ({self.prog} --help lists the options)")


def parsed(
    benchmark: ModuleType, argv: Sequence[str] | None
) -> tuple[argparse.Namespace, argparse.Namespace]:
    """The options, and those of the full set in the same setting."""
    parser = parser_of(benchmark)
    args, full = parser.parse_args(argv), parser.parse_args([])
    for key in SETTINGS:
        setattr(full, key, getattr(args, key, None))
    needs = ONLY_ON.get(args.backend, args.device.type)
    if problem := args.backend and kernels.backends()[args.backend]:
        parser.error(f"--backend {args.backend} cannot run here: {problem}")
    if needs != args.device.type:
        parser.error(f"--backend {args.backend} runs on {needs}, not on {args.device}")
    if args.device.index is not None and args.device.type == "cuda":
        torch.cuda.set_device(args.device)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    return args, full


def called(benchmark: ModuleType) -> str:
    """Its name on the command line."""
    return benchmark.__name__.removeprefix("benchmarks.").replace(".", " ")


def parser_of(benchmark: ModuleType) -> Parser:
    setup = benchmark.SETUP
    parser = Parser(
        prog=f"python -m benchmarks {called(benchmark)}",
        description=benchmark.__doc__,
        epilog=f"The full set takes about {setup.takes} on two cores.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    parser.set_defaults(device=torch.device("cpu"), dtype=None, backend=None, compile=False)
    parser.set_defaults(rounds=0)
    benchmark.options(parser)
    if "cuda" in setup.devices:
        add("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu")
    if setup.dtypes:
        add("--dtype", choices=setup.dtypes, default=setup.dtypes[0])
    if setup.backends:
        text = "of ours (default: the one that would be chosen)"
        add("--backend", choices=setup.backends, help=text)
    if setup.rounds:
        text = f"default: {setup.rounds}"
        add("--rounds", type=at_least(2), default=setup.rounds, help=text)
    if setup.compiles:
        add("--compile", action="store_true", help="PyTorch's forms through torch.compile as well")
    add("--threads", type=at_least(1), help="of the CPU; default: PyTorch's")
    add("--json", action="store_true", help="print the result as JSON")
    text = "file to write (default: a dated one in build/benchmarks/)"
    add("--out", type=Path, metavar="FILE", help=text)
    return parser


def device(text: str) -> torch.device:
    """A device that is there."""
    try:
        found = torch.device(text)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"{text!r} is not known; try cpu or cuda")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise argparse.ArgumentTypeError(f"{text} is absent: torch sees {count} GPUs here; try cpu")
    return found


def at_least(smallest: int) -> Callable[[str], int]:
    """Of an option whose value is a whole number from ``smallest`` on."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < smallest:
            raise argparse.ArgumentTypeError(
                f"{text!r}: a whole number of {smallest} or more is wanted"
            )
        return int(text)

    return number


positive = at_least(1)
