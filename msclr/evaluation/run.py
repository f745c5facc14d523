"""A finished (or running) pretraining, opened for evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from msclr.config import Recipe, make_recipe
from msclr.errors import InputError
from msclr.layouts import Layout
from msclr.nn import STGCN
from msclr.paths import as_path
from msclr.training.backend import fitting, prepare_kernels
from msclr.training.build import build_encoder
from msclr.training.checkpoint import load_checkpoint
from msclr.training.pretrain import CHECKPOINT, pick_device


@dataclass
class Run:
    """The query encoder of a run, frozen, or one newly initialised from the same recipe."""

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

    @property
    def kind(self) -> str:
        return "random" if self.random else "pretrained"


def open_run(folder: str | Path, random: bool = False, device: str | None = None) -> Run:
    """Open the checkpoint of a run's folder.

    Args:
        folder: what :func:`msclr.training.pretrain` wrote, or a checkpoint in it.
        random: leave the weights as they are drawn at initialisation, for comparison.
        device: "cpu", "cuda" or "auto"; None for the recipe's.

    Raises:
        InputError: no run there, or a damaged checkpoint.
    """
    path = as_path(folder)
    if not path.exists():
        raise InputError(f"no run at {path}: there is no such folder")
    path = path / CHECKPOINT if path.is_dir() else path
    folder, state = path.parent, load_checkpoint(path)
    recipe = make_recipe(state["recipe"], source=str(path))
    target = pick_device(device or recipe.device)
    prepare_kernels(fitting(recipe.backend, target), target)
    torch.manual_seed(recipe.seed)
    layouts = [Layout.from_dict(x, source=str(folder)) for x in state["layouts"].values()]
    encoder = build_encoder(recipe, layouts)
    if not random:
        prefix = "query.encoder."
        weights = {k.removeprefix(prefix): v for k, v in state["method"].items() if prefix in k}
        encoder.load_state_dict(weights)
    encoder = encoder.to(target).eval().requires_grad_(False)
    step = 0 if random else state["step"]
    return Run(
        folder,
        recipe,
        encoder,
        list(encoder.layouts),
        step,
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
    )
