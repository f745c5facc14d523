"""msclr demo"""

from __future__ import annotations

import itertools
import os

from msclr.cli._command import command
from msclr.cli._output import TrainingBar, print_json


def add(commands) -> None:
    text = "Everything on a generated data set: minutes on two cores, ends with a report page."
    parser = command(commands, "demo", _demo, text)
    parser.add_argument("--out", help="folder (default: the first free of runs/demo, runs/demo-2)")
    parser.add_argument("--seed", type=int, default=0, help="of the data and the run (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def _demo(arguments) -> None:
    from msclr.demo import run_demo

    with TrainingBar() as bar:
        out = arguments.out or _free_folder("runs/demo")
        result = run_demo(out, arguments.seed, say=bar.say, on_step=bar.on_step)
    if arguments.json:
        print_json(result)
    else:
        print(result["summary"])


def _free_folder(wanted: str) -> str:
    names = (wanted if i == 1 else f"{wanted}-{i}" for i in itertools.count(1))
    return next(name for name in names if not os.path.exists(name))
