"""msclr pretrain"""

from __future__ import annotations

from msclr.cli._command import command
from msclr.cli._output import TrainingBar, first_rank, say


def add(commands) -> None:
    text = (
        "Pretrain by a recipe: a shipped name or a YAML file, with key=value overrides. Ctrl-C and "
        "SIGTERM end it after the running step, with a checkpoint; the exit status is then 130 or "
        "143. A second signal ends it at once."
    )
    parser = command(commands, "pretrain", _pretrain, text)
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--resume", action="store_true", help="go on from the run's checkpoint")


def _pretrain(arguments) -> None:
    from msclr.config import load_recipe
    from msclr.training import pretrain

    recipe = load_recipe(arguments.recipe, arguments.overrides)
    with TrainingBar() as bar:
        folder = pretrain(recipe, arguments.resume, bar.on_step, bar.say)
    if first_rank():
        say(f"run written to {folder}")
