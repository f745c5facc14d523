"""How a command is added to the parser."""

from __future__ import annotations

import argparse
from collections.abc import Callable


class Once(argparse.Action):
    """An option that may not be given again, where others of a command may: it would be lost."""

    def __call__(self, parser, namespace, value, option_string=None) -> None:
        if getattr(namespace, self.dest) != self.default:
            parser.error(f"{option_string} is given twice; give one, and run the command for each")
        setattr(namespace, self.dest, value)


def command(commands, name: str, run: Callable, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser
