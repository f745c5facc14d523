"""How hard the generated clips are: the encoder trained with labels, tested on other people.

Next to `msclr demo`, whose random encoder gives the other end of the scale.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.options import at_least, positive
from benchmarks.runner import Case, Part, Setup
from msclr.data import SkeletonDataset, prepare_arrays, toy
from msclr.nn import STGCN

LAYOUT, CLIPS, BATCH, RATE = "kinectv2_25", 1200, 32, 4e-3


def turned(x: torch.Tensor) -> torch.Tensor:
    """Clips (B, M, T, V, 3), each turned about y by a random angle."""
    angle = (2 * torch.rand(len(x)) - 1) * math.pi
    matrix = torch.zeros(len(x), 3, 3)
    matrix[:, 0, 0] = matrix[:, 2, 2] = angle.cos()
    matrix[:, 0, 2], matrix[:, 2, 0], matrix[:, 1, 1] = angle.sin(), -angle.sin(), 1
    return (x.flatten(1, 3) @ matrix).view_as(x)


def train(train_set: SkeletonDataset, val_set: SkeletonDataset, epochs: int) -> float:
    """Top-1 in percent on the validation people after the last epoch."""
    encoder = STGCN([LAYOUT], 16, 128, dropout=0.1)
    model = torch.nn.ModuleList([encoder, torch.nn.Linear(128, len(train_set.classes))])
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-2)
    steps = len(train_set) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, epochs * steps)

    def logits(data: SkeletonDataset, index: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = encoder(data.inputs(x, LAYOUT), bodies=data.bodies[index])
        return model[1](features.float())

    for _ in range(epochs):
        encoder.train()
        for index in torch.randperm(len(train_set))[: steps * BATCH].split(BATCH):
            x = turned(train_set.clips(LAYOUT, index))
            loss = F.cross_entropy(logits(train_set, index, x), train_set.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    encoder.eval()
    with torch.no_grad():
        parts = torch.arange(len(val_set)).split(128)
        chosen = [logits(val_set, i, val_set.clips(LAYOUT, i)).argmax(1) for i in parts]
    return 100 * (torch.cat(chosen) == val_set.labels).double().mean().item()


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--epochs", type=positive, default=30)
    parser.add_argument("--seed", type=at_least(0), default=0)


def cases(args: argparse.Namespace) -> list[Case]:
    return [Case({"layout": LAYOUT, "epochs": args.epochs, "seed": args.seed})]


def parts(case: Case, args: argparse.Namespace) -> Iterator[Part]:
    torch.manual_seed(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "toy"
        prepare_arrays(data, **toy.generate(CLIPS, args.seed, [LAYOUT]), frames=32)
        top1 = train(*(SkeletonDataset(data, split) for split in ("train", "val")), args.epochs)
    yield Part({}, more={"top1": top1})


SETUP = Setup("5 minutes", file="", rounds=0, devices=("cpu",))
