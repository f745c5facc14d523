"""The keys of a recipe: what each means, its default and what it may be, in one place.

:mod:`msclr.config` checks values by them, and ``msclr recipe`` prints them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, field
from typing import Any

from msclr.method_keys import READS

# Strengths of augmentations; kernels.augment has the same defaults.
AUGMENTATIONS = {
    "shear": 0.5,
    "crop": 1 / 6,
    "rotation": 30.0,
    "noise": 0.01,
    "blur": 2.0,
    "flip": 0.5,
    "axis": 0.5,
}
ANCHOR = "anchor="  # pairs: anchor=LAYOUT


def key(
    default: Any,
    meaning: str,
    *,
    choices: tuple[str, ...] = (),
    least: float = 0,
    most: float = math.inf,
    above: float = -math.inf,
) -> Any:
    """A field of :class:`Recipe`. A callable default makes one; numbers lie in least..most."""
    limits = {"least": least, "most": most, "above": above}
    metadata = {"meaning": meaning, "choices": choices, **limits}
    if isinstance(default, Callable):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Recipe:
    """All that defines a pretraining run. The defaults are the paper's.

    An epoch takes every clip once per layout, as the paper counts.
    """

    data: str | list[str] = key(MISSING, "the prepared folder, or several, trained on together")
    out: str = key(MISSING, "the run's folder")
    layouts: list[str] | None = key(None, "joint layouts to train on; null: all of the data")
    draw: str = key(
        "proportion",
        "of several data sets: by their numbers of clips, or each as often",
        choices=("proportion", "even"),
    )
    derive: list[str] | None = key(None, "layouts computed from those of the data when loaded")
    sub_layouts: int = key(
        0, "random parts of each layout that are trained on as well, each with its own graph"
    )
    derived_share: float | None = key(
        None,
        "share of views under derived layouts and sub-layouts; null: every layout as often",
        most=1,
    )
    joint_subsets: float = key(
        0.0, "share of views that show a connected part of their joints", most=1
    )
    joint_jitter: float = key(
        0.0, "how far joints slide along their bones, as a share of the length", most=1
    )
    data_precision: str = key("fp32", "what the clips are held in", choices=("fp32", "fp16"))
    augment: dict[str, float] = key(
        AUGMENTATIONS.copy,
        "strengths, each a number, on or off: shear (largest off-diagonal) and crop (share of the "
        "frames) of every view; of extreme views also rotation (degrees), noise (standard "
        "deviation, metres), blur (largest standard deviation, frames), flip and axis "
        "(probabilities)",
    )
    method: str = key("aimclr", "see docs/methods.md", choices=tuple(sorted(READS)))
    pairs: str = key(
        "batch",
        "layouts of query and key: drawn per batch or per sample, all pairs, or anchor=LAYOUT: "
        "per sample, one of the two that layout",
        choices=("batch", "sample", "all"),
    )
    stream: str = key("joint", "what is encoded", choices=("joint", "motion", "bone"))

    hidden_channels: int = key(16, "width of the encoder's first blocks", least=1)
    hidden_dim: int = key(256, "length of its features", least=1)
    embedding_dim: int = key(128, "length of what is contrasted", least=1)
    dropout: float = key(0.5, "share of activations set to zero, in blocks 2 to 10", most=1)
    bodies: str = key(
        "present", "bodies that are computed; the papers have all", choices=("present", "all")
    )
    padding: str = key(
        "none", "paper: joints padded as the papers do, for comparison", choices=("none", "paper")
    )

    queue_size: int = key(32768, "keys of past steps that are negatives")
    queue_precision: str = key("fp32", "what the queue keeps them in", choices=("fp32", "bf16"))
    key_momentum: float = key(0.999, "how much of the key encoder a step keeps", most=1)
    temperature: float = key(0.07, "divides the similarities", above=0)
    mining_epoch: int | None = key(150, "neighbour mining from this epoch on; null: never")
    mining_top_k: int = key(1, "neighbours in the queue that become positives", least=1)
    cross_epoch: int | None = key(150, "mining across streams from this epoch on; null: never")
    context: bool = key(True, "similarities of two streams as further logits of that mining")
    negatives: str = key(
        "view", "other clips under the key's layout, or under all", choices=("view", "batch")
    )

    epochs: int = key(300, "passes over the clips, one per layout each", least=1)
    steps: int | None = key(None, "stop after so many steps, whatever epochs says", least=1)
    batch_size: int = key(128, "clips of a step, of all processes together", least=1)
    optimizer: str = key("sgd", "sgd has momentum 0.9", choices=("sgd", "adamw"))
    nesterov: bool = key(False, "sgd with Nesterov's momentum")
    lr: float = key(0.1, "learning rate at its highest", above=0)
    weight_decay: float = key(1e-4, "of all weights")
    schedule: str = key(
        "step", "of the rate: x0.1 at each milestone, or to 0", choices=("step", "cosine")
    )
    milestones: list[int] = key(lambda: [250], "epochs")
    warmup_steps: int = key(0, "steps over which the rate first grows linearly")
    init_from: str | None = key(
        None, "run or checkpoint whose encoder the run begins with, and heads where they fit"
    )

    precision: str = key(
        "auto",
        "auto: bf16 where the device multiplies it natively, else fp32",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    device: str = key("auto", "cpu, cuda, or auto: a GPU where there is one")
    backend: str = key(
        "auto",
        "of the operators; auto: what is known to be right and fast on the device",
        choices=("auto", "reference", "cpu", "triton", "cuda"),
    )
    cuda_graph: str = key(
        "auto",
        "steps as CUDA graphs: on a GPU, if a step can be captured; on, off",
        choices=("auto", "on", "off"),
    )
    seed: int = key(0, "of all random numbers", most=2**63 - 1)
    log_every: int = key(50, "steps between lines of the log", least=1)
    checkpoint_every: int | None = key(
        None, "steps between checkpoints, each over the last; null: an epoch", least=1
    )
    keep_every: int | None = key(
        None, "epochs between checkpoints that stay, next to the last; null: none", least=1
    )
    knn_every: int | None = key(
        None, "steps between nearest-neighbour accuracies of the encoder; null: never", least=1
    )
    tsne_every: int | None = key(
        None, "epochs between t-SNE maps of the features in TensorBoard; null: never", least=1
    )


DEFAULT_VALUES = asdict(Recipe(data="", out=""))
