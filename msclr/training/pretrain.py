"""Pretraining: the loop on one page, and what it is built from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from msclr.config import Recipe, save_recipe
from msclr.data.dataset import SkeletonDataset
from msclr.errors import DivergedError, InputError
from msclr.methods import METHODS
from msclr.nn import STGCN
from msclr.training.batches import Draw, Sampler, ViewMaker
from msclr.training.checkpoint import load_checkpoint, save_checkpoint
from msclr.training.distributed import Ranks, ranks_of
from msclr.training.log import RunLog, StepRecord
from msclr.training.schedule import learning_rate

CHECKPOINT = "checkpoint.pt"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_STORAGE = {"fp32": "float32", "fp16": "float16"}
_DEFAULTS = asdict(Recipe(data="", out=""))
_FREE_TO_CHANGE = ("data", "out", "device", "log_every", "checkpoint_every")  # on a resume


def pretrain(
    recipe: Recipe,
    resume: bool = False,
    on_step: Callable[[int, int, list[StepRecord]], None] | None = None,
) -> Path:
    """Run a recipe to its end, and return the run's folder.

    The folder gets ``recipe.yaml``, ``log.csv``, ``tensorboard/`` and ``checkpoint.pt``.

    Args:
        recipe: see :class:`~msclr.config.Recipe`.
        resume: go on from the folder's checkpoint, or from the start where there is none yet.
        on_step: called after each step with the steps done, the steps in all, and the records
            that became known with it (every ``log_every`` steps).

    Raises:
        InputError: bad data, a folder in use, or a checkpoint of another recipe.
        DivergedError: a loss that is not finite.
    """
    device = pick_device(recipe.device)
    with ranks_of(device) as ranks:
        run = Pretraining(recipe, ranks, device)
        step = run.begin(resume)
        log = RunLog(run.folder, step) if ranks.first else None
        while step < run.steps:
            run.step(step)
            step += 1
            records = []
            if step % recipe.log_every == 0 or run.checkpoint_due(step):
                records = run.take_records()
                if log:
                    log.write(records)
                run.check_finite(records)
            if run.checkpoint_due(step):
                run.save(step)
            if on_step:
                on_step(step, run.steps, records)
        if log:
            log.close()
        ranks.barrier()
    return run.folder


class Pretraining:
    """Data, method and optimiser of a recipe, on one process of a run."""

    def __init__(self, recipe: Recipe, ranks: Ranks, device: torch.device):
        ranks.check_batch(recipe.batch_size)
        self.recipe, self.ranks, self.device = recipe, ranks, device
        self.folder = Path(recipe.out)
        self.dataset = SkeletonDataset(
            recipe.data, "train", recipe.layouts, device, _STORAGE[recipe.data_precision]
        )
        layouts = list(self.dataset.layouts.values())
        self.sampler = Sampler(len(self.dataset), len(layouts), recipe.batch_size, recipe.seed)
        self.steps_per_epoch = self.sampler.steps_per_epoch
        self.steps = recipe.steps or recipe.epochs * self.steps_per_epoch

        torch.manual_seed(recipe.seed)
        method = METHODS[recipe.method](
            build_encoder(recipe, layouts),
            embedding_dim=recipe.embedding_dim,
            queue_size=recipe.queue_size,
            queue_dtype=_DTYPES[recipe.queue_precision],
            key_momentum=recipe.key_momentum,
            temperature=recipe.temperature,
        )
        self.method = method.to(device).train()
        if ranks.group is not None:
            self.method.synchronise(ranks.group)
        self.views = ViewMaker(
            self.dataset, recipe.stream, recipe.pairs, recipe.seed, method.needs_extreme_view
        )
        self.parameters = list(self.method.query.parameters())
        self.optimizer = _optimizer(recipe, self.parameters)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        for parameter in self.parameters:  # zero, never None: the layout that a batch leaves out
            parameter.grad = torch.zeros_like(parameter)  # is decayed like the others
        self._pending: list[tuple[int, Tensor, Tensor, float]] = []
        self._since = time.perf_counter()

    def step(self, step: int) -> None:
        """One update, the step counted from 0."""
        recipe = self.recipe
        epoch = step // self.steps_per_epoch
        rate = learning_rate(recipe, step, self.steps, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.method.mining = recipe.mining_epoch is not None and epoch >= recipe.mining_epoch
        # dropout's numbers follow from the step, so there is no generator state to keep
        torch.manual_seed(_step_seed(recipe.seed, step, self.ranks.rank))

        batch = self.views(self._draw(step), step)
        self.views.prefetch(self._draw(step + 1), step + 1)
        with self._autocast():
            out = self.method(batch)
        self.optimizer.zero_grad(set_to_none=False)
        self.scaler.scale(out.loss).backward()
        self.ranks.average_gradients(self.parameters)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.method.enqueue(out.keys)
        self._pending.append((step, out.loss.detach(), out.contrast_accuracy, rate))

    def _draw(self, step: int) -> Draw:
        """This process's share of a step's clips."""
        return Draw(*map(self.ranks.share, self.sampler.draw(step)))

    def take_records(self) -> list[StepRecord]:
        """Records of the steps since the last call; this is where the host waits for the device."""
        if not self._pending:
            return []
        steps, losses, accuracies, rates = zip(*self._pending, strict=True)
        values = self.ranks.mean(torch.stack([torch.stack(losses), torch.stack(accuracies)]))
        values = values.cpu().tolist()
        now = time.perf_counter()
        speed = self.recipe.batch_size * len(steps) / (now - self._since)
        self._since, self._pending = now, []
        return [
            StepRecord(step + 1, step // self.steps_per_epoch + 1, loss, accuracy, rate, speed)
            for step, loss, accuracy, rate in zip(steps, *values, rates, strict=True)
        ]

    def check_finite(self, records: list[StepRecord]) -> None:
        for record in records:
            if not math.isfinite(record.loss):
                what = f"the loss is {record.loss} at"
                raise DivergedError(self._divergence(what, record.step, record.lr))

    def _divergence(self, what: str, step: int, rate: float) -> str:
        saved = self.folder / CHECKPOINT
        good = f"is {saved}" if saved.exists() else "does not exist yet"
        return f"{what} step {step}, learning rate {rate:.4g}; the last good checkpoint {good}"

    def checkpoint_due(self, step: int) -> bool:
        every = self.recipe.checkpoint_every or self.steps_per_epoch
        return step == self.steps or step % every == 0

    def begin(self, resume: bool) -> int:
        """Make or take up the folder; returns the number of steps already done."""
        saved = self.folder / CHECKPOINT
        step = 0
        if resume and saved.exists():
            step = self._restore(load_checkpoint(saved, self.device), saved)
        elif not resume and (saved.exists() or (self.folder / "log.csv").exists()):
            raise InputError(
                f"{self.folder} holds a run already: add --resume, or give another out"
            )
        if self.ranks.first:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_recipe(self.recipe, self.folder / "recipe.yaml")
        self.ranks.barrier()
        return step

    def save(self, step: int) -> None:
        """Write the checkpoint of a run that has done ``step`` steps, if its weights are finite."""
        if not torch.stack([p.isfinite().all() for p in self.parameters]).all():
            rate = self.optimizer.param_groups[0]["lr"]
            raise DivergedError(self._divergence("the weights are not finite after", step, rate))
        if not self.ranks.first:
            return
        state = {
            "recipe": asdict(self.recipe),
            "layouts": {name: x.to_dict() for name, x in self.dataset.layouts.items()},
            "data_checksums": dict(self.dataset.store.meta["checksums"]),
            "step": step,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        save_checkpoint(self.folder / CHECKPOINT, state)

    def _restore(self, state: dict, path: Path) -> int:
        mine = asdict(self.recipe)
        theirs = _DEFAULTS | state["recipe"]  # keys that came since stood at their defaults
        unlike = [k for k in mine if k not in _FREE_TO_CHANGE and mine[k] != theirs[k]]
        if unlike:
            changes = ", ".join(f"{k}={theirs[k]!r} there, {mine[k]!r} here" for k in unlike)
            raise InputError(f"{path} is of another recipe: {changes}")
        if state["data_checksums"] != self.dataset.store.meta["checksums"]:
            raise InputError(f"{path} was trained on other data than {self.recipe.data} holds")
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        return state["step"]

    def _autocast(self):
        if self.recipe.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self.recipe.precision])


def build_encoder(recipe: Recipe, layouts) -> STGCN:
    """The encoder that a recipe describes, newly initialised."""
    return STGCN(
        layouts,
        hidden_channels=recipe.hidden_channels,
        hidden_dim=recipe.hidden_dim,
        dropout=recipe.dropout,
        bodies=recipe.bodies,
        padding=recipe.padding,
    )


def pick_device(name: str) -> torch.device:
    """The device of a recipe; "auto" is a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name!r} is not known; try cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {name!r} is not to be had: torch sees no GPU here; try cpu")
    return device


def _step_seed(seed: int, step: int, rank: int) -> int:
    return ((seed * 1_000_003 + step) * 1_009 + rank) % 2**63


def _optimizer(recipe: Recipe, parameters) -> torch.optim.Optimizer:
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(parameters, lr=recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay)
