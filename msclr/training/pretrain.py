"""Pretraining: the loop on one page, and what it is built from."""

from __future__ import annotations

import difflib
import logging
import math
import shlex
import signal
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from msclr.config import Recipe, save_recipe
from msclr.errors import DivergedError, InputError, StoppedError
from msclr.methods import METHODS
from msclr.paths import as_path
from msclr.training.backend import describe_kernels, running_on
from msclr.training.build import build_method, build_sampler, build_views, open_clips
from msclr.training.checkpoint import CHECKPOINT, RECIPE, load_checkpoint, save_checkpoint
from msclr.training.distributed import Ranks, own_device, ranks_of
from msclr.training.graph import CudaGraphs, GraphedSteps, Recorder, why_no_graphs
from msclr.training.header import header, notices
from msclr.training.initial import load_initial
from msclr.training.log import COINCIDE, KnnRecord, RunLog, StepRecord
from msclr.training.optimizer import optimizer_of, set_rate, state_of
from msclr.training.precision import DTYPES, choose_precision, emulation_warning
from msclr.training.resume import require_same_run
from msclr.training.sampler import Draw
from msclr.training.schedule import learning_rate
from msclr.training.stop import noted_signals
from msclr.training.watch import Watch, last_keys_cosine

LOG = "log.csv"
_OF_A_RUN = (RECIPE, LOG)  # what a run leaves before its first checkpoint
_DEFAULTS = asdict(Recipe(data="", out=""))

logger = logging.getLogger(__name__)


def pretrain(
    recipe: Recipe,
    resume: bool = False,
    on_step: Callable[[int, int, list[StepRecord]], None] | None = None,
    say: Callable[[str], None] | None = None,
    on_knn: Callable[[list[KnnRecord]], None] | None = None,
) -> Path:
    """Run a recipe to its end, and return the run's folder.

    The folder gets ``recipe.yaml``, ``log.csv``, ``tensorboard/`` and ``checkpoint.pt``,
    and by the recipe's keys ``checkpoint_epoch_N.pt``, ``knn.csv`` and ``tsne/``. A SIGINT or
    SIGTERM ends the run after the running step, with a checkpoint; a second one at once.

    Args:
        recipe: see :class:`~msclr.config.Recipe`.
        resume: go on from the folder's checkpoint, or from the start where a run has begun there
            and has written none yet.
        on_step: called after each step with the steps done, the steps in all, and the records
            that became known with it (every ``log_every`` steps).
        say: takes a line for the user: the header and notices of the run, and what is measured.
        on_knn: called with each nearest-neighbour accuracy that ``knn_every`` asked for.

    Raises:
        InputError: bad data, a folder in use, nothing to resume, or a checkpoint of another recipe.
        DivergedError: a loss that is not finite.
        StoppedError: a signal came.
    """
    device = pick_device(recipe.device)
    with (
        ranks_of(device) as ranks,
        running_on(recipe.backend, device, ranks.host_group),
        closing(Pretraining(recipe, ranks, device)) as run,
    ):
        step = run.begin(resume)
        run.announce(say, step)
        log = RunLog(run.folder, step) if ranks.first else None
        say = say if say and ranks.first else _say_nothing
        stopped_by = 0
        with noted_signals() as stop:
            while step < run.steps and not stopped_by:
                run.step(step)
                step += 1
                stopped_by = ranks.most(stop.number)
                due = run.checkpoint_due(step) or stopped_by
                records = []
                if step % recipe.log_every == 0 or due:
                    records = run.take_records()
                    if log:
                        log.write(records)
                    run.check_finite(records)
                if due:
                    run.save(step)
                    if (sign := run.sign_of_collapse(step)) is not None:
                        say(sign)
                if run.watch:
                    run.watch.look(step, log, say, on_knn)
                if on_step:
                    on_step(step, run.steps, records)
            stopped_by = stopped_by or ranks.most(stop.number)  # while the last step was saved
        if log:
            log.close()
        ranks.barrier()  # torchrun ends all ranks when the first of them ends with an error
        if stopped_by:
            raise run.stopped(stopped_by, step)
    return run.folder


class Pretraining:
    """Data, method and optimiser of a recipe, on one process of a run."""

    def __init__(
        self,
        recipe: Recipe,
        ranks: Ranks,
        device: torch.device,
        recorder: Recorder | None = None,  # what captures steps; None: CUDA, where it can be
    ):
        ranks.check_batch(recipe.batch_size)
        self.ranks, self.device = ranks, device
        self.folder = as_path(recipe.out)
        self.dataset = open_clips(recipe, device)
        layouts = list(self.dataset.layouts.values())
        self.sampler = build_sampler(recipe, self.dataset)
        self.steps_per_epoch = self.sampler.steps_per_epoch
        self.steps = recipe.steps or recipe.epochs * self.steps_per_epoch

        torch.manual_seed(recipe.seed)
        self.method = build_method(recipe, layouts).to(device).train()
        if ranks.group is not None:
            self.method.synchronise(ranks.group)
        self.views = build_views(recipe, self.dataset)
        self.parameters = list(self.method.query.parameters())
        if recorder is None and not why_no_graphs(
            recipe, device, ranks.size, len(self.dataset.parts)
        ):
            recorder = CudaGraphs(device)
        self.graphs = recorder and GraphedSteps(self._update, recorder, device)
        self.views.buckets = recipe.bodies if self.graphs else None
        self.optimizer = optimizer_of(recipe, self.parameters, captured=bool(self.graphs))
        self.asked_precision = recipe.precision
        self._set_precision(recipe, self._precision())
        for parameter in self.parameters:  # zero, never None: the layout that a batch leaves out
            parameter.grad = torch.zeros_like(parameter)  # is decayed like the others
        self._pending: list[tuple[int, Tensor, float]] = []
        self._since = time.perf_counter()
        self._collapsed, self.initial = False, ""  # what of init_from was taken
        watched = ranks.first and (recipe.knn_every or recipe.tsne_every)
        self.watch = Watch(self) if watched else None

    def _precision(self) -> str:
        """The recipe's; "auto" becomes what is native on every rank."""
        if self.asked_precision != "auto":
            return self.asked_precision
        lacking = self.ranks.most(int(choose_precision(self.device) == "fp32"))
        return "fp32" if lacking else "bf16"

    def _set_precision(self, recipe: Recipe, precision: str) -> None:
        self.recipe = replace(recipe, precision=precision)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")

    def announce(self, say: Callable[[str], None] | None, step: int) -> None:
        """Say where the run begins and in which precision; warn where that is slow for nothing."""
        if not self.ranks.first:
            return
        precision = self.recipe.precision
        if say:
            for line in header(self, step):
                say(line)
            for line in notices(self):
                say(f"note: {line}")
        if (warning := emulation_warning(precision, self.device)) is not None:
            logger.warning(warning)

    def step(self, step: int) -> None:
        """One update, the step counted from 0."""
        recipe = self.recipe
        epoch = step // self.steps_per_epoch
        rate = learning_rate(recipe, step, self.steps, self.steps_per_epoch)
        set_rate(self.optimizer, self.graphs.rate if self.graphs else rate)
        self.method.start_step(epoch)
        # dropout's numbers follow from the step, so there is no generator state to keep
        torch.manual_seed(_step_seed(recipe.seed, step, self.ranks.rank))

        batch = self.views(self._draw(step), step)
        if not self.dataset.resident:
            self.views.prefetch(self._draw(step + 1), step + 1)
        if self.graphs:
            values = self.graphs(batch, rate, self.method.phase)
            if self.graphs.failed:
                self.graphs = self.views.buckets = None
        else:
            values = self._update(batch)
        self._pending.append((step, values, rate))

    def _update(self, batch: Any) -> Tensor:
        """Of a batch; returns its loss and its contrast accuracy (2,)."""
        with self._autocast():
            out = self.method(batch)
        self.optimizer.zero_grad(set_to_none=False)
        self.scaler.scale(out.loss).backward()
        self.ranks.average_gradients(self.parameters)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.method.enqueue(out.keys)
        return torch.stack([out.loss.detach(), out.contrast_accuracy])

    def _draw(self, step: int) -> Draw:
        """This process's share of a step's clips."""
        return Draw(*map(self.ranks.share, self.sampler.draw(step)))

    def take_records(self) -> list[StepRecord]:
        """Records of the steps since the last call; this is where the host waits for the device."""
        if not self._pending:
            return []
        steps, values, rates = zip(*self._pending, strict=True)
        values = self.ranks.mean(torch.stack(values, dim=1))
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
        return step == self.steps or step % every == 0 or self._kept(step)

    def _kept(self, step: int) -> bool:
        """Whether the checkpoint of a step stays next to the last one."""
        every = (self.recipe.keep_every or 0) * self.steps_per_epoch
        return every > 0 and step % every == 0

    def sign_of_collapse(self, step: int) -> str | None:
        """A line, once, if the last keys nearly coincide after an epoch or more; else None."""
        if self._collapsed or step < self.steps_per_epoch:
            return None
        cosine = last_keys_cosine(self.method, self.recipe.batch_size)
        self._collapsed = cosine is not None and cosine > COINCIDE
        if not self._collapsed:
            return None
        return (
            f"note: after step {step} the last keys nearly coincide (mean cosine {cosine:.5f}): "
            "the encoder has collapsed, or learns nothing yet; see docs/pretraining.md"
        )

    def encoder_of(self, stream: str) -> nn.Module:
        """The encoder that is trained on a stream."""
        query = self.method.query
        return (query[stream] if METHODS[self.recipe.method].per_stream else query).encoder

    def leave_out(self, seconds: float) -> None:
        """Time that was not spent on steps, for the speed in the log."""
        self._since += seconds

    def begin(self, resume: bool) -> int:
        """Make or take up the folder; returns the number of steps already done."""
        saved = self.folder / CHECKPOINT
        step = 0
        if resume and saved.exists():
            step = self._restore(load_checkpoint(saved, self.device), saved)
        elif resume and not any((self.folder / name).exists() for name in _OF_A_RUN):
            raise InputError(f"nothing to resume in {self.folder}: {self._not_there()}")
        elif not resume and (saved.exists() or (self.folder / LOG).exists()):
            raise InputError(
                f"{self.folder} holds a run already: add --resume, or give another out"
            )
        if self.recipe.init_from and not (resume and saved.exists()):
            self.initial = load_initial(self.recipe, self.method)
        if self.ranks.first:
            save_recipe(self.recipe, self.folder / RECIPE)
        self.ranks.barrier()
        return step

    def _not_there(self) -> str:
        """Why there is nothing to resume in the folder, and what may have been meant."""
        siblings = [path.parent.name for path in self.folder.parent.glob(f"*/{CHECKPOINT}")]
        close = difflib.get_close_matches(self.folder.name, siblings, n=1)
        if close:
            return f"did you mean out={self.folder.with_name(close[0])}?"
        return f"it has no {CHECKPOINT}; give another out, or leave out --resume to begin a run"

    def stopped(self, number: int, step: int) -> StoppedError:
        """What tells the user that a signal came, where the run is kept and how to go on."""
        came = f"{signal.Signals(number).name} came after step {step} of {self.steps}"
        if step == self.steps:
            return StoppedError(f"{came}; the run in {self.folder} is finished", number)
        command = f"msclr pretrain {shlex.quote(str(self.folder / RECIPE))} --resume"
        if self.ranks.size > 1:
            command = f"torchrun ... -m {command}"
        kept = f"{came}, kept in {self.folder / CHECKPOINT}"
        return StoppedError(f"{kept}; to go on: {command}", number)

    def close(self) -> None:
        """End what works in the background."""
        self.dataset.close()
        if self.watch:
            self.watch.close()

    def save(self, step: int) -> None:
        """Write the checkpoint of a run that has done ``step`` steps, if its weights are finite."""
        if not torch.stack([p.isfinite().all() for p in self.parameters]).all():
            rate = self.optimizer.param_groups[0]["lr"]
            raise DivergedError(self._divergence("the weights are not finite after", step, rate))
        if not self.ranks.first:
            return
        state = {
            "recipe": asdict(self.recipe),
            "layouts": {name: x.to_dict(True) for name, x in self.dataset.layouts.items()},
            **self.dataset.about(),
            **describe_kernels(),
            "step": step,
            "method": self.method.state_dict(),
            "optimizer": state_of(self.optimizer),
            "scaler": self.scaler.state_dict(),
        }
        save_checkpoint(self.folder / CHECKPOINT, state)
        if self._kept(step):
            epoch = step // self.steps_per_epoch
            save_checkpoint(self.folder / f"checkpoint_epoch_{epoch:04d}.pt", state)

    def _restore(self, state: dict, path: Path) -> int:
        theirs = _DEFAULTS | state["recipe"]  # keys that came since stood at their defaults
        if self.asked_precision == "auto":  # as it was chosen when the run began
            self._set_precision(self.recipe, theirs["precision"])
        require_same_run(self, state, theirs, path)
        total = theirs["steps"] or theirs["epochs"] * self.steps_per_epoch
        if total != self.steps and self.recipe.schedule == "cosine":
            logger.warning(
                "the run was to end after %s steps and now ends after %s: its rate follows the new "
                "schedule from here on",
                total,
                self.steps,
            )
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        return state["step"]

    def _autocast(self):
        if self.recipe.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=DTYPES[self.recipe.precision])


def _say_nothing(text: str) -> None: ...


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
    return own_device(device)


def _step_seed(seed: int, step: int, rank: int) -> int:
    return ((seed * 1_000_003 + step) * 1_009 + rank) % 2**63
