"""msclr recipe, and the keys of a recipe as text"""

from __future__ import annotations

import textwrap
from dataclasses import MISSING, fields
from typing import Any

from msclr.cli._command import command

_WIDTH, _INDENT = 100, 4
_KINDS = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}


def add(commands) -> None:
    text = (
        "Every key of a recipe with its value, what it means, its default and its kind. Without "
        "NAME, the shipped recipes."
    )
    parser = command(commands, "recipe", _recipe, text)
    parser.add_argument("recipe", metavar="RECIPE", nargs="?", help="a shipped name or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value")


def _recipe(arguments) -> None:
    from msclr.config import load_recipe, missing_folders, recipe_names

    if arguments.recipe is None:
        print("\n".join(recipe_names()))
        return
    missing = [f"{key}=FOLDER" for key in missing_folders(arguments.recipe)]
    recipe = load_recipe(arguments.recipe, [*missing, *arguments.overrides])
    print(keys_text({f.name: getattr(recipe, f.name) for f in fields(recipe)}))


def keys_text(values: dict[str, Any] | None = None) -> str:
    """The keys of a recipe, each with its meaning, default and kind, and its value if given."""
    from msclr.recipe_keys import Recipe

    entries = []
    for f in fields(Recipe):
        default = f.default if f.default is not MISSING else f.default_factory
        default = default() if callable(default) else default
        about = [f.metadata["meaning"], _kind(f)]
        if default is not MISSING:
            about.append(f"default {shown(default)}")
        head = f.name if values is None else f"{f.name}: {shown(values[f.name])}"
        indent = " " * _INDENT
        entries.append(
            "\n".join(
                textwrap.wrap(head, _WIDTH, subsequent_indent=indent, break_on_hyphens=False)
                + textwrap.wrap(
                    "; ".join(about), _WIDTH, initial_indent=indent, subsequent_indent=indent
                )
            )
        )
    return "\n".join(entries)


def shown(value: Any) -> str:
    """A value as it is written after ``key=``."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, dict):
        return ",".join(f"{name}={shown(x)}" for name, x in value.items())
    return str(value)


def _kind(f) -> str:
    if f.metadata["choices"]:
        return " | ".join(f.metadata["choices"])
    kind, null = str(f.type).removesuffix(" | None"), str(f.type).endswith(" | None")
    if kind.startswith("dict"):
        return "NAME=STRENGTH,.."
    if "list" in kind:
        item = _KINDS["str" if "str" in kind else "int"]
        made = f"{item}, or several by commas"
    else:
        made = _KINDS[kind]
    return made + (" or null" if null else "")
