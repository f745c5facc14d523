"""A finished (or running) pretraining, opened for evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from msclr.config import Recipe, make_recipe
from msclr.data.store import Store
from msclr.errors import InputError
from msclr.layouts import Layout
from msclr.method_keys import readable
from msclr.methods import METHODS
from msclr.nn import STGCN
from msclr.training.backend import fitting, prepare_kernels
from msclr.training.build import build_encoders
from msclr.training.checkpoint import CHECKPOINT, checkpoint_of, load_checkpoint
from msclr.training.pretrain import pick_device


@dataclass
class Run:
    """The query encoder of a run, frozen, or one newly initialised from the same recipe.

    Of a run that trained an encoder for each stream, ``encoders`` has all, and ``encoder`` is that
    of the joint stream unless :meth:`of_stream` chose another.
    """

    folder: Path
    recipe: Recipe
    encoder: STGCN
    layouts: list[str]  # of the pretraining; the encoder may be given others later
    step: int  # steps of pretraining behind the encoder
    device: torch.device
    random: bool
    # Of the data it was trained on, see `Store`. None and empty in checkpoints of older versions.
    coordinates: str | None = None
    units: str | None = None
    size: dict[str, float | None] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)
    derived: dict[str, str] = field(default_factory=dict)  # layout -> what it was derived from
    frame: str = "camera"
    frame_told: bool = True  # else the frame may be "ntu" as well: checkpoints did not say
    size_by: str = "none"
    frames: int | None = None
    body_slots: int | None = None  # M of the prepared clips
    encoders: dict[str, STGCN] = field(default_factory=dict)  # by stream; empty for one of a kind
    parts: list[dict[str, Any]] = field(default_factory=list)  # of several data sets: each one's
    checkpoint: str = CHECKPOINT  # the file in the folder that was opened

    @property
    def path(self) -> Path:
        """The folder, or the checkpoint in it where that is not the last one."""
        return self.folder if self.checkpoint == CHECKPOINT else self.folder / self.checkpoint

    @property
    def kind(self) -> str:
        return "random" if self.random else "pretrained"

    def data_of(self, data: str | Path | None) -> str | Path:
        """The folder that is evaluated on: ``data``, or that of the training.

        Raises InputError for None where the run was trained on several.
        """
        if data is not None:
            return data
        if isinstance(self.recipe.data, list):
            raise InputError(
                f"{self.folder} was trained on several data sets: say on which to evaluate it, "
                f"--data {' or --data '.join(self.recipe.data)}"
            )
        return self.recipe.data

    def on(self, store: Store) -> Run:
        """Of a run trained on several data sets, with what is known of this one in place of all.

        Of a data set that is none of them, a layout is derived as in the first that derived it from
        what this one has.
        """
        for part in self.parts:
            if part["data_checksums"] == store.meta["checksums"]:
                size, derived = part["size"], part["derived"]
                return replace(self, size=size, derived=derived, checksums=part["data_checksums"])
        derived = {
            name: source
            for part in reversed(self.parts)
            for name, source in part["derived"].items()
            if source in store.layouts
        }
        return replace(self, derived=derived) if self.parts else self

    def of_stream(self, stream: str) -> Run:
        """The same run with the encoder that was trained on a stream, or InputError."""
        encoders = self.encoders or {self.recipe.stream: self.encoder}
        if stream not in encoders:
            has = ", ".join(encoders)
            raise InputError(f"{self.folder} has no encoder of stream {stream!r}, only of {has}")
        recipe = replace(self.recipe, stream=stream)
        return replace(self, recipe=recipe, encoder=encoders[stream])


def chosen_streams(run: Run, streams: str | None = None) -> list[Run]:
    """The run once for each of "a+b+c"; None for all streams that it has an encoder of.

    Raises InputError for a stream that it has no encoder of, or that is named twice.
    """
    names = streams.split("+") if streams else list(run.encoders) or [run.recipe.stream]
    if len(set(names)) < len(names):
        raise InputError(f"stream {streams!r} names one twice")
    return [run.of_stream(name) for name in names]


def open_run(folder: str | Path, random: bool = False, device: str | None = None) -> Run:
    """Open the checkpoint of a run's folder.

    Args:
        folder: what :func:`msclr.training.pretrain` wrote, or a checkpoint in it.
        random: leave the weights as they are drawn at initialisation, for comparison.
        device: "cpu", "cuda" or "auto"; None for the recipe's.

    Raises:
        InputError: no run there, or a damaged checkpoint.
    """
    path = checkpoint_of(folder)
    folder, state = path.parent, load_checkpoint(path)
    recipe = make_recipe(readable(state["recipe"]), source=str(path))
    target = pick_device(device or recipe.device)
    prepare_kernels(fitting(recipe.backend, target), target)
    torch.manual_seed(recipe.seed)
    layouts = [Layout.from_dict(x, source=str(folder)) for x in state["layouts"].values()]
    encoders = build_encoders(recipe, layouts)
    per_stream = METHODS[recipe.method].per_stream
    for name, encoder in encoders.items():
        if not random:
            prefix = f"query.{name}.encoder." if per_stream else "query.encoder."
            encoder.load_state_dict(_below(prefix, state["method"]))
        for drawn in state.get("sub_layouts", {}):  # they served the training
            encoder.drop_layout(drawn)
        encoder.to(target).eval().requires_grad_(False)
    encoder = encoders[recipe.stream]
    return Run(
        folder,
        recipe,
        encoder,
        list(encoder.layouts),
        0 if random else state["step"],
        target,
        random,
        coordinates=state.get("coordinates"),
        units=state.get("units"),
        size=state.get("size") or {},
        checksums=state.get("data_checksums") or {},
        derived=state.get("derived") or {},
        frame=state.get("frame", "camera"),
        frame_told="frame" in state,
        size_by=state.get("size_by", "none"),
        frames=state.get("frames"),
        body_slots=state.get("bodies"),
        encoders=encoders if per_stream else {},
        parts=state.get("parts") or [],
        checkpoint=path.name,
    )


def _below(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
