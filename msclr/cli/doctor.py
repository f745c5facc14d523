"""msclr doctor"""

from __future__ import annotations

from msclr.cli._command import command
from msclr.cli._output import print_json, say
from msclr.errors import InputError

_COLUMNS = ("operator", "precision", "backend", "worst error", "ms", "reference ms", "verdict")
_SICK = ("wrong", "failed", "it hung", "its process died")  # how a verdict on a bad kernel begins


def add(commands) -> None:
    text = "Try every kernel on this machine: is it right, is it fast, does it run by default."
    parser = command(commands, "doctor", _doctor, text)
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default)")
    parser.add_argument("--again", action="store_true", help="forget earlier verdicts")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _doctor(arguments) -> int:
    from msclr import kernels
    from msclr.training.pretrain import pick_device

    device = pick_device(arguments.device)
    try:
        rows = [_flat(row) for row in kernels.examine(device, again=arguments.again, say=say)]
        runs = kernels.would_run(device)
    except ValueError as error:  # of an environment variable
        raise InputError(str(error)) from None
    for row in rows:
        row["runs"] = runs[row["operator"]].get(row["precision"]) == row["backend"]
        row["others"] = {
            other["backend"]: other["seconds"]
            for other in rows
            if other is not row and all(other[k] == row[k] for k in ("operator", "precision"))
        }
    sick = any(row["verdict"].startswith(_SICK) for row in rows)
    if arguments.json:
        print_json({"device": str(device), "backends": kernels.backends(), "verdicts": rows})
        return int(sick)
    for name, reason in kernels.backends().items():
        print(f"{'backend ' + name:18}{reason or 'can run here'}")
    print()
    for line in _table(rows):
        print(line)
    return int(sick)


def _flat(row) -> dict:
    key, verdict = row.key, row.verdict
    return {
        "operator": key.operator,
        "precision": key.family,
        "backend": key.backend,
        "device": key.machine.device,
        "qualified": verdict.adopted,
        "verdict": verdict.reason,
        "error": verdict.error,
        "allowed": verdict.allowed,
        "seconds": verdict.seconds,
        "reference_seconds": verdict.reference_seconds,
    }


def _table(rows: list[dict]) -> list[str]:
    if not rows:
        return ["no kernels but PyTorch's own can run on this device"]
    table = [_COLUMNS]
    for row in rows:
        error = f"{row['error']:.1e} of {row['allowed']:.1e}" if row["allowed"] else ""
        table.append((
            row["operator"],
            row["precision"],
            row["backend"] + (" *" if row["runs"] else ""),
            error,
            _milliseconds(row["seconds"]),
            _milliseconds(row["reference_seconds"]),
            row["verdict"],  # last, for it may be long
        ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*table, strict=True)][:-1]
    lines = [
        "  ".join([*(cell.ljust(w) for cell, w in zip(row[:-1], widths, strict=True)), row[-1]])
        for row in table
    ]
    return [*lines, "", "* runs where no backend is named"]


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.3g}"
