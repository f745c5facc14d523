"""``python -m benchmarks NAME [options]``; ``python -m benchmarks --help`` lists the names."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

from benchmarks.runner import run
from msclr.errors import InputError

NAMES = ("data read", "data prepare", "data batches", "data step", "graph_conv", "info_nce")
NAMES += ("multi_view", "stgcn", "step", "predict", "toy_supervised")
USAGE = "python -m benchmarks NAME [options]"


def main(argv: list[str]) -> int:
    """Exit status 0, 2 for bad input, or 1 for a machine that failed, both said in one line."""
    if argv in (["-h"], ["--help"], ["data", "-h"], ["data", "--help"]):
        print(listing())
        return 0
    try:
        if argv[:1] == ["accuracy"]:  # its runs take an hour, and it has other options
            from benchmarks.accuracy import command

            return command.main(argv[1:])
        for name in chosen(argv):
            run(load(name), argv[len(name.split()) :])
    except ModuleNotFoundError as error:
        _of_tests(error)
        print(f"benchmarks: error: {argv[0]} needs a checkout: it has no tests/", file=sys.stderr)
        return 2
    except InputError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # such as a full disk
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 1
    return 0


def chosen(argv: list[str]) -> list[str]:
    """The name at the front; `data` alone means all of its topics."""
    for name in (" ".join(argv[:1]), " ".join(argv[:2])):
        if name in NAMES:
            return [name]
    if argv == ["data"]:
        return [name for name in NAMES if name.startswith("data ")]
    raise InputError(
        f"no benchmark of the name {' '.join(argv[:2])!r}; {USAGE}, NAME one of {', '.join(NAMES)}"
    )


def load(name: str) -> ModuleType:
    return import_module(f"benchmarks.{name.replace(' ', '.')}")


def listing(usage: str = USAGE) -> str:
    """Usage, and a line per benchmark: name, how long its full set takes, what it is."""
    lines = [f"usage: {usage}", "", "NAME --help lists its options. On two cores, full sets take:"]
    for name in NAMES:
        try:
            module = load(name)
        except ModuleNotFoundError as error:
            _of_tests(error)
            continue
        lines.append(f"  {name:15} {module.SETUP.takes:11} {module.__doc__.splitlines()[0]}")
    lines.append(f"  {'data':27} all four of these, one after the other")
    lines.append(
        f"  {'accuracy':15} {'an hour':11} Accuracies of a list of runs, over several seeds."
    )
    return "\n".join(lines)


def _of_tests(error: ModuleNotFoundError) -> None:
    """Raise it unless it is about tests/, which a checkout has and a wheel lacks."""
    if str(error.name).partition(".")[0] != "tests":
        raise error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
