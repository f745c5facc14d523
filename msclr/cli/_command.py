"""How a command is added to the parser."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def command(commands, name: str, run: Callable, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser
