"""msclr pretrain"""

from __future__ import annotations

import argparse
import textwrap

from msclr.cli._command import command
from msclr.cli._output import TrainingBar, first_rank, say


def add(commands) -> None:
    text = (
        "Pretrain by a recipe: a shipped name or a YAML file, with key=value overrides. Ctrl-C and "
        "SIGTERM end it after the running step, with a checkpoint; the exit status is then 130 or "
        "143. A second signal ends it at once."
    )
    parser = command(commands, "pretrain", _pretrain, text)
    parser.formatter_class = _WithKeys
    parser.add_argument("recipe", metavar="RECIPE", help="the only one that is required")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="see below")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the run's checkpoint; a finished run goes on with more steps or epochs",
    )


class _WithKeys(argparse.HelpFormatter):
    """Help that ends with the keys of a recipe, which other commands need not know."""

    def format_help(self) -> str:
        from msclr.cli.recipe import keys_text

        text = super().format_help()
        if "positional arguments" not in text:  # the usage alone, of an error
            return text
        return f"{text}\nkeys of a recipe:\n{textwrap.indent(keys_text(), '  ')}\n"


def _pretrain(arguments) -> None:
    from msclr.config import load_recipe
    from msclr.training import pretrain

    recipe = load_recipe(arguments.recipe, arguments.overrides)
    with TrainingBar() as bar:
        folder = pretrain(recipe, arguments.resume, bar.on_step, bar.say, bar.on_knn)
    if first_rank():
        say(f"run written to {folder}")
