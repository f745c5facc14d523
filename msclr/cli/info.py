"""msclr info"""

from __future__ import annotations

from msclr import __version__
from msclr.cli._command import command
from msclr.cli._output import print_json


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
        else:
            print(f"{key:18}{', '.join(value) if isinstance(value, list) else value}")
