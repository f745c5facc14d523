"""What is run: a plan's file, and the jobs that follow from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from msclr.config import Recipe, load_recipe
from msclr.data.store import Store
from msclr.errors import InputError
from msclr.paths import as_path

FOLDER = Path(__file__).parent
# Keys of a recipe that came when plans had been run, and what those runs had: done runs stay done.
_LATER_KEYS = {"sub_layouts": 0}
_RUN_KEYS = ("changes", "supervised", "data", "streams")


@dataclass(frozen=True)
class Plan:
    """A plan's file.

    name: of the file.
    recipe: what all runs start from; `changes`, a list of "key=value", apply to all of them.
    runs: name -> {"changes": further ones, "supervised": true for training with labels, "data":
        names of the plan's data sets that it is trained and asked on; all if not given,
        "streams": an encoder is trained for each of these, and their ensemble is asked}.
    frame: which one the data must be in.
    data: names of the data sets, where there are several, in the order of `--data`.
    subject: a pattern whose first group says, in the name of a clip, whose it is; of several data
        sets {name: pattern}.
    hold_out: those of the training people who are asked by `--select`.
    candidates: name -> changes that `--select` tries.
    select: the runs with which it tries them; all that have no labels if not given.
    choose: the figures whose mean decides between candidates; all linear ones if not given.
    mirrored: whether figures of features with mirror images are taken as well.
    compare: pairs of "RUN: FIGURE"; the difference of the first from the second is reported.
    """

    name: str
    recipe: str
    runs: dict[str, dict[str, Any]]
    subject: str | dict[str, str]
    hold_out: list[str]
    frame: str = "body"
    data: list[str] = field(default_factory=lambda: ["data"])
    changes: list[str] = field(default_factory=list)
    candidates: dict[str, list[str]] = field(default_factory=dict)
    select: list[str] = field(default_factory=list)
    choose: list[str] = field(default_factory=list)
    mirrored: bool = False
    compare: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """One run of the plan: a recipe with its seed, candidate and folder."""

    key: str  # of its files
    run: str
    candidate: str
    recipe: Recipe
    supervised: bool
    data: dict[str, str]  # name in the plan, "" of a plan with one -> folder
    streams: list[str] = field(default_factory=list)  # of an ensemble of encoders
    mirrored: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Job:
        return cls(**{**values, "recipe": Recipe(**values["recipe"])})


def load_plan(name: str) -> Plan:
    """The plan of a file, or of that name in this folder; InputError says what is wrong with it."""
    path = FOLDER / f"{name}.yaml"
    path = path if path.is_file() else as_path(name)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"no plan {name!r}: {' '.join(str(error).split())}") from None
    known = {f.name for f in fields(Plan)} - {"name"}
    needed = ("recipe", "runs", "subject", "hold_out")
    if not isinstance(values, dict) or values.keys() - known or not values.keys() >= set(needed):
        raise InputError(f"plan {path}: keys are {', '.join(sorted(known))}; needed {needed}")
    plan = Plan(name=path.stem, **values)
    if unknown := set(plan.select) - set(plan.runs):
        raise InputError(f"plan {path}: select has {unknown}; runs are {', '.join(plan.runs)}")
    for run, about in plan.runs.items():
        if unknown := set(about or {}) - set(_RUN_KEYS):
            raise InputError(f"plan {path}: run {run} has {unknown}; keys are {_RUN_KEYS}")
        names = _data_of(plan, run)
        if unknown := set(names) - set(plan.data):
            raise InputError(f"plan {path}: run {run} has data {unknown}; it is of {plan.data}")
        if len(names) > 1 and (about or {}).get("supervised"):
            raise InputError(f"plan {path}: supervised run {run} takes one data set, not {names}")
    return plan


def _data_of(plan: Plan, run: str) -> list[str]:
    return (plan.runs[run] or {}).get("data") or plan.data


def jobs_of(
    plan: Plan, stores: Sequence[Store], out: Path, seeds: int, candidates: dict[str, list[str]]
) -> list[Job]:
    """Seed by seed, so that the first seeds of all runs are known first."""
    jobs, of = [], dict(zip(plan.data, stores, strict=True))
    for seed in range(seeds):
        for run, about in plan.runs.items():
            about = about or {}
            supervised, streams = bool(about.get("supervised")), about.get("streams", [])
            mine = {name: of[name] for name in _data_of(plan, run)}
            several = len(plan.data) > 1
            folders = {name if several else "": str(x.path) for name, x in mine.items()}
            data = json.dumps([*folders.values()], ensure_ascii=False)
            for name, changes in candidates.items():
                own = [*plan.changes, *about.get("changes", []), *changes, f"seed={seed}"]
                key = f"{_plain(run)}-{_plain(name)}-{seed}"
                given = [f"data={data}", f"out={out / 'runs' / key}", "device=cpu"]
                recipe = load_recipe(plan.recipe, [*own, *given])
                key = f"{key}-{_digest(recipe, [*mine.values()], supervised, streams)}"
                recipe = load_recipe(plan.recipe, [*own, *given, f"out={out / 'runs' / key}"])
                jobs.append(
                    Job(key, run, name, recipe, supervised, folders, streams, plan.mirrored)
                )
    return jobs


def _digest(
    recipe: Recipe, stores: Sequence[Store], supervised: bool, streams: Sequence[str]
) -> str:
    """Of all that a result follows from: other options or data make other files."""
    data = [store.meta["checksums"] for store in stores]
    keys = asdict(recipe).items()
    about = {k: x for k, x in keys if k not in _LATER_KEYS or x != _LATER_KEYS[k]}
    about |= {"data": data, "out": "", "supervised": supervised}
    about |= {"streams": streams} if streams else {}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]


def _plain(name: str) -> str:
    return "".join(x if x.isalnum() else "_" for x in name)
