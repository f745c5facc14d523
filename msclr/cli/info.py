"""msclr info"""

from __future__ import annotations

from msclr import __version__
from msclr.cli._command import command
from msclr.cli._output import print_json
from msclr.errors import InputError


def add(commands) -> None:
    parser = command(commands, "info", _info, "Versions, devices, backends, layouts, recipes.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _info(arguments) -> None:
    import platform

    import torch

    from msclr import kernels, layouts
    from msclr.config import recipe_names

    facts = {
        "msclr": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "backends": kernels.backends(),
        "would_run": _would_run(),
        "layouts": layouts.names(),
        "recipes": recipe_names(),
    }
    if arguments.json:
        print_json(facts)
        return
    for key, value in facts.items():
        if key == "backends":
            for name, reason in value.items():
                print(f"{'backend ' + name:18}{reason or 'can run here'}")
        elif key == "would_run":
            for device, operators in value.items():
                for operator, families in operators.items():
                    print(f"{'runs on ' + device:18}{operator}: {_grouped(families)}")
        else:
            print(f"{key:18}{', '.join(value) if isinstance(value, list) else value}")


def _would_run() -> dict[str, dict[str, dict[str, str]]]:
    """Device -> operator -> precision -> the backend that runs where none is named."""
    import torch

    from msclr import kernels

    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    try:
        return {device: kernels.would_run(device) for device in devices}
    except ValueError as error:  # of an environment variable
        raise InputError(str(error)) from None


def _grouped(families: dict[str, str]) -> str:
    """One name where one backend runs in every precision."""
    if len(set(families.values())) == 1:
        return next(iter(families.values()))
    return ", ".join(f"{backend} ({family})" for family, backend in families.items())
