"""A data set and a recipe so small that a training step takes milliseconds."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import yaml

from msclr import layouts
from msclr.config import Recipe, make_recipe
from msclr.data import prepare_arrays
from msclr.method_keys import readable

LAYOUTS = ("h36m_17", "kinectv1_20")
UNSEEN = "openpose_18"
TRAIN, VAL, FRAMES = 22, 8, 8
OTHER, OTHER_VAL = 10, 4  # of a second data set
BATCH = 8  # of 44 views an epoch: 5 steps, the rest is left out
STEPS_PER_EPOCH = 5


def tiny_clips(names=LAYOUTS) -> dict:
    """Arguments of `prepare_arrays`: the odd clips are of class 1 and hold a second body."""
    rng = np.random.default_rng(0)
    count = TRAIN + VAL
    views: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for clip in range(count):
        label, time = clip % 2, np.linspace(0, 1, FRAMES)[:, None, None]
        for name in names:
            shape = (1 + label, 1, layouts.get(name).num_joints, 3)  # (M, 1, V, 3)
            wave = np.sin(2 * np.pi * (1 + label) * time + rng.uniform(0, 6, shape))
            views[name].append(rng.normal(0, 0.5, shape) + 0.2 * wave)  # (M, T, V, 3)
    return {
        "views": views,
        "labels": [clip % 2 for clip in range(count)],
        "split": ["train"] * TRAIN + ["val"] * VAL,
        "classes": ["stand", "hug"],
        "frame": "camera",  # in metres, so that another unit shows
    }


def prepare_tiny(folder: Path, names=LAYOUTS) -> Path:
    prepare_arrays(folder, **tiny_clips(names), frames=FRAMES)
    return folder


def prepare_other(folder: Path, frames: int = FRAMES, **changes) -> Path:
    """A smaller data set: clips of one body under a layout of the tiny one, and another."""
    given = tiny_clips((LAYOUTS[1], "smpl_24"))
    clips = range(5, 5 + OTHER + OTHER_VAL)
    given["views"] = {k: [x[i][:1] for i in clips] for k, x in given["views"].items()}
    given["labels"] = [given["labels"][i] for i in clips]
    given["split"] = ["train"] * OTHER + ["val"] * OTHER_VAL
    prepare_arrays(folder, **given | changes, frames=frames)
    return folder


def tiny_values(data: Path, out: Path, **changes) -> dict:
    """Keys of a recipe: MS-AimCLR, dropout 0.5, mining from the second epoch, 12 steps."""
    values = {
        "data": str(data),
        "out": str(out),
        "layouts": list(LAYOUTS),
        "pairs": "sample",
        "hidden_channels": 2,
        "hidden_dim": 8,
        "embedding_dim": 6,
        "queue_size": 13,
        "key_momentum": 0.9,
        "mining_epoch": 1,
        "steps": 12,
        "batch_size": BATCH,
        "lr": 1e-5,  # a larger one soon embeds every clip alike: the loss is then a constant
        "precision": "fp32",
        "device": "cpu",
        "log_every": 1,
        "checkpoint_every": 4,
    }
    return readable(values, changes.get("method")) | changes


def tiny_recipe(data: Path, out: Path, **changes) -> Recipe:
    return make_recipe(tiny_values(data, out, **changes))


def write_recipe(path: Path, data: Path, out: Path, **changes) -> Path:
    path.write_text(yaml.safe_dump(tiny_values(data, out, **changes)))
    return path


def column(run: Path, name: str = "loss") -> list[str]:
    """A column of log.csv, as text."""
    with (run / "log.csv").open(newline="") as file:
        return [row[name] for row in csv.DictReader(file)]


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder with its content, and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def same_files(ours: Path, theirs: Path) -> None:
    """Every array and list of names of two data sets is the same, byte for byte."""
    files = sorted(file.relative_to(ours) for file in ours.glob("*/*"))
    assert files == sorted(file.relative_to(theirs) for file in theirs.glob("*/*")) != []
    for file in files:
        assert (ours / file).read_bytes() == (theirs / file).read_bytes(), file
