"""Recipes: YAML files over one dataclass."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml

from msclr.errors import InputError
from msclr.method_keys import DEFAULTS, check_keys, readable
from msclr.paths import as_path
from msclr.recipe_keys import DEFAULT_VALUES, Recipe
from msclr.recipe_values import check_value, parse_augment

RECIPES = Path(__file__).parent / "recipes"

_NEEDED = ("data", "out")
_PATHS = (*_NEEDED, "init_from")
_LISTS = tuple(f.name for f in fields(Recipe) if "list" in str(f.type))


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a file, or a shipped one by its name, with ``key=value`` overrides.

    A file is UTF-8. It may name another as its ``base`` and holds only what differs from it.

    Values are read by the kind of their key, and not as YAML sees them: a text is taken as it is
    written (``out=007``, ``data=data #1``), a number is decimal (``seed=010`` is 10), and a list is
    ``a,b`` or ``[a, b]``. Folders may begin with ``~``. In a file, ``data`` is a list only as
    ``[a, b]``. ``augment`` is ``shear=0.3,noise=off``, or a mapping; what it does not name is
    as in the base.

    Raises:
        InputError: no such recipe, unknown key, or a value of the wrong kind.
    """
    given = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise InputError(f"expected key=value, got {override!r}")
        given[key.strip()] = _listed(text, override)
    if "augment" in given:
        given["augment"] = parse_augment(given["augment"])
    values = _over(_read(_find(name)), given)
    return make_recipe(values, source=f"recipe {name}", asked=given)


def make_recipe(
    values: Mapping[str, Any], source: str = "recipe", asked: Collection[str] = ()
) -> Recipe:
    """A checked recipe of plain values; InputError names the key at fault.

    ``asked``: the keys that the user has just given, see :func:`msclr.method_keys.check_keys`.
    """
    known = {f.name: f for f in fields(Recipe)}
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"keys are {', '.join(known)}"
            raise InputError(f"{source}: unknown key {key!r}; {hint}")
    for key in _NEEDED:
        if values.get(key) in (None, ""):
            raise InputError(f"{source}: {key} is missing; give {key}=FOLDER")
    checked = {key: check_value(source, known[key], value) for key, value in values.items()}
    checked = DEFAULTS.get(checked.get("method"), {}) | checked
    check_keys(source, checked, DEFAULT_VALUES, asked)
    for key in _PATHS:
        value = checked.get(key)
        if value is not None:
            checked[key] = [_home(x) for x in value] if isinstance(value, list) else _home(value)
    recipe = Recipe(**checked)
    _check_draws(source, recipe)
    return recipe


def _home(path: str) -> str:
    return str(as_path(path)) if path.startswith("~") else path


def _check_draws(source: str, recipe: Recipe) -> None:
    """Raise InputError for keys that say how data are drawn, where there is nothing to draw."""
    several = isinstance(recipe.data, list)
    if several and len(set(recipe.data)) < len(recipe.data):
        raise InputError(f"{source}: data names a folder twice; leave one out")
    if recipe.draw != "proportion" and not several:
        raise InputError(
            f"{source}: draw={recipe.draw} is of several data sets; give data=FOLDER,FOLDER, or "
            "leave draw out"
        )
    if recipe.derived_share is not None and not (recipe.derive or recipe.sub_layouts):
        raise InputError(
            f"{source}: derived_share is of derived layouts; give derive=LAYOUT or sub_layouts=1"
        )
    if recipe.derived_share is not None and recipe.pairs != "sample":
        raise InputError(f"{source}: derived_share is of pairs=sample, here is {recipe.pairs}")


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe that :func:`load_recipe` reads back; its folder is made.

    Raises InputError where that cannot be.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (NotADirectoryError, FileExistsError, PermissionError) as error:
        raise InputError(f"out is {path.parent}: {error.strerror}; choose another folder") from None
    text = yaml.safe_dump(asdict(recipe), sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


def recipe_names() -> list[str]:
    """The shipped recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def missing_folders(name: str) -> list[str]:
    """Which of data and out a recipe leaves to the command."""
    values = _read(_find(name))
    return [key for key in _NEEDED if values.get(key) in (None, "")]


def _find(name: str) -> Path:
    shipped = RECIPES / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    path = as_path(name)
    if path.is_file():
        return path
    close = difflib.get_close_matches(name, recipe_names(), n=1)
    hint = (
        f"did you mean {close[0]!r}?" if close else f"shipped ones are {', '.join(recipe_names())}"
    )
    raise InputError(f"no recipe {name!r}: neither a file nor a shipped recipe; {hint}")


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8-sig"), _TextLoader) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected key: value lines, got {type(values).__name__}")
    if "augment" in values:
        values["augment"] = parse_augment(values["augment"])
    base = values.pop("base", None)
    if base is None:
        return values
    sibling = path.parent / f"{base}.yaml"
    base_path = sibling if sibling.is_file() else _find(str(base))
    if base_path in (path, *seen):
        raise InputError(f"{path}: base {base!r} leads back to itself")
    return _over(_read(base_path, (path, *seen)), values)


def _over(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Values over those of a base, of which a changed method keeps what it reads."""
    method = values.get("method")
    base = readable(base, method) if isinstance(method, str) else base
    both = [of["augment"] for of in (base, values) if isinstance(of.get("augment"), dict)]
    if len(both) == 2:  # strengths are inherited one by one
        values = {**values, "augment": both[0] | both[1]}
    return {**base, **values}


class _TextLoader(yaml.SafeLoader):
    """YAML whose plain scalars are all text, except null: the key decides their kind."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in found if tag == "tag:yaml.org,2002:null"]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _listed(text: str, override: str) -> Any:
    """The items of ``key=[a, b]`` and ``data=a,b``; any other text as it is."""
    key = override.partition("=")[0].strip()
    if not (key in _LISTS and text.lstrip().startswith("[")):
        return [x.strip() for x in text.split(",")] if key == "data" and "," in text else text
    try:
        return yaml.load(text, _TextLoader)
    except yaml.YAMLError:
        raise InputError(f"cannot read the value of {override!r}") from None
