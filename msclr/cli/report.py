"""msclr report"""

from __future__ import annotations

from msclr.cli._command import command
from msclr.cli._output import say


def add(commands) -> None:
    text = (
        "One page about a run: settings, curves, accuracies of all its evaluations, confusion "
        "matrix, t-SNE by class and by layout, a clip, speed."
    )
    parser = command(commands, "report", _report, text)
    parser.add_argument("run_folder", metavar="RUN")
    parser.add_argument("--device", help="cpu, cuda or auto; default: the recipe's")


def _report(arguments) -> None:
    from msclr.evaluation.run_report import write_report

    print(f"report: {write_report(arguments.run_folder, arguments.device, say)}")
