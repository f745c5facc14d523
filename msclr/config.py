"""Recipes: YAML files over one dataclass."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from msclr.errors import InputError
from msclr.method_keys import DEFAULTS, READS, check_keys, readable
from msclr.paths import as_path

RECIPES = Path(__file__).parent / "recipes"

_CHOICES = {
    "method": tuple(sorted(READS)),
    "pairs": ("batch", "sample", "all"),
    "stream": ("joint", "motion", "bone"),
    "optimizer": ("sgd", "adamw"),
    "schedule": ("step", "cosine"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "queue_precision": ("fp32", "bf16"),
    "data_precision": ("fp32", "fp16"),
    "bodies": ("present", "all"),
    "padding": ("none", "paper"),
    "draw": ("proportion", "even"),
    "negatives": ("view", "batch"),
    "backend": ("auto", "reference", "cpu", "triton", "cuda"),
}
_PATHS = ("data", "out")
_NOTHING = ("null", "~", "none")  # texts for None
_SHARES = ("key_momentum", "dropout", "joint_subsets", "joint_jitter", "derived_share")
_AT_LEAST_ONE = ("epochs", "batch_size", "hidden_channels", "hidden_dim", "embedding_dim")
_AT_LEAST_ONE += ("mining_top_k", "log_every", "steps", "checkpoint_every")


@dataclass(frozen=True)
class Recipe:
    """All that defines a pretraining run. The defaults are the paper's.

    An epoch takes every clip once per layout, as the paper counts.
    """

    data: str | list[str]  # the prepared folder, or several that are trained on together
    out: str  # the run's folder
    layouts: list[str] | None = None  # None: every layout of the data set
    draw: str = "proportion"  # of several data sets, by their numbers of clips; or each as often
    derive: list[str] | None = None  # layouts computed from those of the data as it is loaded
    derived_share: float | None = None  # of the views; None: every layout as often
    joint_subsets: float = 0.0  # share of views that show a connected part of their joints
    joint_jitter: float = 0.0  # how far joints slide along their bones, as a share of their length
    data_precision: str = "fp32"  # what the clips are held in
    method: str = "aimclr"
    pairs: str = "batch"  # drawn per batch or per sample, or all pairs of layouts
    stream: str = "joint"

    hidden_channels: int = 16
    hidden_dim: int = 256
    embedding_dim: int = 128
    dropout: float = 0.5
    bodies: str = "present"
    padding: str = "none"

    queue_size: int = 32768
    queue_precision: str = "fp32"  # what the queue keeps its keys in
    key_momentum: float = 0.999
    temperature: float = 0.07
    mining_epoch: int | None = 150  # neighbour mining from this epoch on; None: never
    mining_top_k: int = 1  # neighbours in the queue that become positives
    cross_epoch: int | None = 150  # mining across streams from this epoch on; None: never
    context: bool = True  # similarities of two streams as further logits of that mining
    negatives: str = "view"  # multiview: the key's layout of the other clips, or "batch": all of it

    epochs: int = 300
    steps: int | None = None  # stop after this many steps, whatever epochs says
    batch_size: int = 128  # clips, of all processes together
    optimizer: str = "sgd"
    nesterov: bool = False
    lr: float = 0.1
    weight_decay: float = 1e-4
    schedule: str = "step"  # x0.1 at each milestone, or cosine to 0
    milestones: list[int] = field(default_factory=lambda: [250])  # epochs
    warmup_steps: int = 0  # the rate grows linearly over them

    precision: str = "auto"  # bf16 where the device multiplies it natively, else fp32
    device: str = "auto"
    backend: str = "auto"  # of the operators: what is known to be right and fast on the device
    seed: int = 0
    log_every: int = 50  # steps
    checkpoint_every: int | None = None  # steps; None: at the end of each epoch


_LISTS = tuple(f.name for f in fields(Recipe) if "list" in str(f.type))


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a file, or a shipped one by its name, with ``key=value`` overrides.

    A file is UTF-8. It may name another as its ``base`` and holds only what differs from it.

    Values are read by the kind of their key, and not as YAML sees them: a text is taken as it is
    written (``out=007``, ``data=data #1``), a number is decimal (``seed=010`` is 10), and a list is
    ``a,b`` or ``[a, b]``. ``data`` and ``out`` may begin with ``~``. In a file, ``data`` is a list
    only as ``[a, b]``.

    Raises:
        InputError: no such recipe, unknown key, or a value of the wrong kind.
    """
    given = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise InputError(f"expected key=value, got {override!r}")
        given[key.strip()] = _listed(text, override)
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
    for key in ("data", "out"):
        if values.get(key) in (None, ""):
            raise InputError(f"{source}: {key} is missing; give {key}=FOLDER")
    checked = {key: _check(source, known[key], value) for key, value in values.items()}
    checked = DEFAULTS.get(checked.get("method"), {}) | checked
    check_keys(source, checked, {f.name: f.default for f in known.values()}, asked)
    for key in _PATHS:
        value = checked[key]
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
    if recipe.derived_share is not None and not recipe.derive:
        raise InputError(f"{source}: derived_share is of derived layouts; give derive=LAYOUT")
    if recipe.derived_share is not None and recipe.pairs != "sample":
        raise InputError(f"{source}: derived_share is of pairs=sample, here is {recipe.pairs}")


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe that :func:`load_recipe` reads back."""
    text = yaml.safe_dump(asdict(recipe), sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


def recipe_names() -> list[str]:
    """The shipped recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


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
    base = values.pop("base", None)
    if base is None:
        return values
    beside = path.parent / f"{base}.yaml"
    base_path = beside if beside.is_file() else _find(str(base))
    if base_path in (path, *seen):
        raise InputError(f"{path}: base {base!r} leads back to itself")
    return _over(_read(base_path, (path, *seen)), values)


def _over(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Values over those of a base, of which a changed method keeps what it reads."""
    method = values.get("method")
    return {**(readable(base, method) if isinstance(method, str) else base), **values}


class _TextLoader(yaml.SafeLoader):
    """YAML whose plain scalars are all text, but for null: what kind they are of, the key knows."""

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


def _by_kind(kind: str, value: Any) -> Any:
    """A text as the kind of its key says; unchanged where it is of another, to be refused."""
    if isinstance(value, str) and "None" in kind and value.lower() in _NOTHING:
        return None
    if not kind.startswith("list"):
        return _whole(value) if kind.startswith("int") else value
    if isinstance(value, str):
        value = [x.strip() for x in value.split(",")]  # layouts=a,b
    value = value if isinstance(value, list) else [value]
    return [_whole(x) for x in value] if "int" in kind else value


def _whole(value: Any) -> Any:
    """The decimal number that a text holds; YAML would read 010 as 8."""
    try:
        return int(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _check(source: str, f: Any, value: Any) -> Any:
    """The value in the field's type, or InputError."""
    kind, key, given = str(f.type), f.name, value
    value = None if value is None else _by_kind(kind, value)
    if value is None:
        if "None" in kind:
            return None
    elif "list" in kind:
        item = str if "str" in kind else int
        several = isinstance(value, list)
        whole = all(type(v) is item and v != "" for v in (value if several else [value]))
        if whole and (value or item is int):
            return value[0] if key in _PATHS and len(value) == 1 and several else value
    elif kind == "bool":
        truth = {"true": True, "false": False}.get(str(value).lower())
        if truth is not None:
            return truth
    elif kind.startswith("int"):
        if isinstance(value, int) and not isinstance(value, bool):
            return _in_range(source, key, value)
    elif kind.startswith("float"):
        number = _number(value)
        if number is not None:
            return _in_range(source, key, number)
    elif isinstance(value, str):
        choices = _CHOICES.get(key)
        if choices is None or value in choices:
            return value
        raise InputError(f"{source}: {key} must be one of {', '.join(choices)}, got {value!r}")
    raise InputError(f"{source}: {key} must be {kind}, got {given!r}")


def _number(value: Any) -> float | None:
    """A finite float, also from text."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None


def _in_range(source: str, key: str, value: float) -> Any:
    if key in _AT_LEAST_ONE and value < 1:
        raise InputError(f"{source}: {key} must be at least 1, got {value}")
    if key in _SHARES and not 0 <= value <= 1:
        raise InputError(f"{source}: {key} must lie in 0..1, got {value}")
    if key in ("lr", "temperature") and not value > 0:
        raise InputError(f"{source}: {key} must be positive, got {value}")
    if value < 0:
        raise InputError(f"{source}: {key} must not be negative, got {value}")
    return value
