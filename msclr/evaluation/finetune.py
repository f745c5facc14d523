"""Finetuning: all weights of an encoder trained on labels, of all train clips or of a share."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msclr.data.dataset import SkeletonDataset
from msclr.data.streams import to_stream
from msclr.encoder.routes import Route, derived
from msclr.errors import InputError
from msclr.evaluation.features import BATCH, centred, prepare_route
from msclr.evaluation.linear import check_options, check_seed
from msclr.evaluation.metrics import per_class_accuracy, top_k_accuracy
from msclr.evaluation.results import PerClip, check_also, describe, keep_result, of_route
from msclr.evaluation.run import Run, chosen_streams
from msclr.evaluation.splits import SplitClips, clips_of, distinct, unknown_classes
from msclr.nn import STGCN
from msclr.training.backend import fitting, running_on
from msclr.training.precision import DTYPES, choose_precision, is_native

LR, BATCH_SIZE, MOMENTUM, WEIGHT_DECAY = 0.1, 64, 0.9, 1e-4
_EVERY = 5  # epochs between evaluations, as in the papers' code

OnEpoch = Callable[[int, int, str], None]  # epochs done, epochs in all, a note


class Schedule(NamedTuple):
    """Epochs, those of the linear warm-up, and those after which the rate falls tenfold."""

    epochs: int
    warmup: int
    milestones: Sequence[int]

    def scaled(self, epochs: int) -> Schedule:
        """The same in another number of epochs, each part in proportion."""
        share = epochs / self.epochs
        return Schedule(
            epochs, round(share * self.warmup), [round(share * x) for x in self.milestones]
        )

    def rate(self, lr: float, step: int, steps_per_epoch: int) -> float:
        """Of a step counted from 0."""
        rising = self.warmup * steps_per_epoch
        if step < rising:
            return lr * (step + 1) / rising
        return lr * 0.1 ** sum(step >= x * steps_per_epoch for x in self.milestones)


# Of HiCLR's released code, which is AimCLR's with these protocols in it.
SCHEDULES = {"finetune": Schedule(70, 5, (30, 55)), "semi": Schedule(60, 5, (20, 40))}


def evaluate_finetune(
    run: Run,
    layout: str,
    data: str | Path | None = None,
    stream: str | None = None,
    seed: int = 0,
    *,
    epochs: int | None = None,
    lr: float = LR,
    batch_size: int = BATCH_SIZE,
    route: str = "auto",
    also: Collection[str] = (),
    on_epoch: OnEpoch | None = None,
) -> dict[str, Any]:
    """A linear classifier and a copy of the encoder trained together on all labels of one layout.

    SGD with momentum 0.9 (Nesterov) and weight decay 1e-4, no augmentation, 70 epochs: 5 of linear
    warm-up, the rate falls tenfold after 30 and after 55; with other ``epochs`` each in proportion.
    Accuracies are taken every fifth epoch and after the last. Computed in the run's precision where
    the device has it, evaluated in float32.

    Args:
        run, layout, data, stream, route, also: see :func:`~msclr.evaluation.evaluate_linear`. With
            "joint+motion+bone" the encoders of all streams are trained together, each with a
            classifier, on the mean of their logits. A layout that is derived trains the known one,
            one that is attached gets an input norm and an edge importance that are trained too.
        seed: of the classifier, the order of the clips and dropout.
        epochs, lr, batch_size: None for the protocol's epochs.
        on_epoch: called after each epoch with the epochs done, those in all, and a note.

    Returns:
        What ``msclr evaluate finetune --json`` prints; it also goes to the run's folder. The run
        and its checkpoint stay as they are.

    Raises:
        InputError: a class without a train clip, or training that diverges; see also
            :func:`~msclr.evaluation.splits.features_of`.
    """
    options = {"seed": seed, "epochs": epochs, "lr": lr, "batch_size": batch_size}
    how = {"route": route, "also": also, "on_epoch": on_epoch}
    return _finetune(run, "finetune", layout, data, stream, 1.0, options, **how)


def evaluate_semi(
    run: Run,
    layout: str,
    labels: float,
    data: str | Path | None = None,
    stream: str | None = None,
    seed: int = 0,
    *,
    epochs: int | None = None,
    lr: float = LR,
    batch_size: int = BATCH_SIZE,
    route: str = "auto",
    also: Collection[str] = (),
    on_epoch: OnEpoch | None = None,
) -> dict[str, Any]:
    """As :func:`evaluate_finetune`, with the labels of a share of the train clips of each class.

    Clips are drawn by :func:`draw_labelled`. 60 epochs: 5 of warm-up, the rate falls after 20 and
    after 40. As in the papers' code an epoch takes as many steps as one of all train clips, so that
    each labelled clip is taken ``1 / labels`` times.

    Args:
        labels: the share, above 0 and at most 1, such as 0.01 or 0.1.
        seed: of the draw too.

    Returns:
        What ``msclr evaluate semi --json`` prints, with ``labelled_clips``, their number.

    Raises:
        InputError: a share out of range; see also :func:`evaluate_finetune`.
    """
    options = {"seed": seed, "epochs": epochs, "lr": lr, "batch_size": batch_size}
    how = {"route": route, "also": also, "on_epoch": on_epoch}
    return _finetune(run, "semi", layout, data, stream, labels, options, **how)


def draw_labelled(labels: Tensor, share: float, seed: int = 0) -> Tensor:
    """The clips whose labels are used: (n,) int64, ascending, on the CPU.

    Of each class ``round(share * clips of the class)``, at least one if it has any. The draw
    depends on labels, share and seed alone, so it is the same for all layouts, streams and runs.
    With the same seed a smaller share is part of a larger one.

    Args:
        labels: (N,) class numbers.

    Raises:
        InputError: a share that is not above 0 and at most 1, or a seed below 0 or from 2^63 on.
    """
    check_share(share)
    check_seed(seed)
    labels = labels.cpu()
    counts = labels.bincount().tolist()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = order[labels[order].argsort(stable=True)].split(counts)
    wanted = [max(min(1, count), math.floor(share * count + 0.5)) for count in counts]
    drawn = [clips[:count] for clips, count in zip(by_class, wanted, strict=True)]
    return torch.cat(drawn).sort().values


def check_share(share: float) -> None:
    """Raise InputError unless a share of the labels lies above 0 and is at most 1."""
    if not 0 < share <= 1:
        raise InputError(f"labels is {share}; wanted a share above 0 and at most 1, such as 0.01")


class Classifier(nn.Module):
    """Encoders, one per stream, each with a linear layer; logits are the mean over streams."""

    def __init__(self, runs: Sequence[Run], clips: SplitClips, seed: int):
        super().__init__()
        self.route, self.planar = clips.route, clips.train.planar
        self.centred = centred(clips.train)
        self.encoders = nn.ModuleDict()
        self.heads = nn.ModuleDict()
        generator = torch.Generator().manual_seed(seed)
        for run in runs:
            encoder = copy.deepcopy(run.encoder)
            prepare_route(clips.route, encoder, clips.train, run.recipe.stream, run.random)
            head = nn.Linear(encoder.hidden_dim, len(clips.classes))
            nn.init.normal_(head.weight, 0.0, 0.01, generator=generator)
            nn.init.zeros_(head.bias)
            self.encoders[run.recipe.stream] = encoder.requires_grad_(True)
            self.heads[run.recipe.stream] = head.to(run.device)

    def forward(self, x: Tensor, bodies: Tensor) -> Tensor:
        """Logits (B, classes) of clips x (B, M, T, V, 3), bodies (B, M) bool."""
        views = _views(self.route, x, bodies, self.planar, self.centred)
        logits = [
            self.heads[stream](self._features(encoder, views, bodies, stream))
            for stream, encoder in self.encoders.items()
        ]
        return torch.stack(logits).mean(dim=0)

    def _features(
        self, encoder: STGCN, views: dict[str, Tensor], bodies: Tensor, stream: str
    ) -> Tensor:
        features = []
        for layout, x in views.items():
            x = to_stream(x, stream, encoder.layouts[layout], self.planar)
            features.append(encoder(x.permute(0, 4, 2, 3, 1), layout, bodies))
        return torch.stack(features).mean(dim=0)  # (B, D)


def _views(
    route: Route, x: Tensor, bodies: Tensor, planar: bool, centred: bool
) -> dict[str, Tensor]:
    """{layout: clips (B, M, T, V, 3)}: what the encoder is given of clips on a route."""
    views = {}
    if route.kind != "derive":
        views[route.layout.name] = x
    if route.kind in ("derive", "both"):
        target = route.passage.target.name
        views[target] = derived(route.passage, x, bodies, planar, centred)
    return views


def _finetune(
    run: Run,
    protocol: str,
    layout: str,
    data: str | Path | None,
    stream: str | None,
    share: float,
    options: dict[str, Any],
    *,
    route: str,
    also: Collection[str],
    on_epoch: OnEpoch | None,
) -> dict[str, Any]:
    usual = SCHEDULES[protocol]
    options["epochs"] = usual.epochs if options["epochs"] is None else options["epochs"]
    check_options(**options, what="finetuning")
    check_share(share)
    check_also(also)
    runs = chosen_streams(run, stream or run.recipe.stream)
    clips = clips_of(runs[0], layout, data, route)
    if absent := unknown_classes(clips.train.labels, clips.val.labels, clips.classes):
        raise InputError(
            f"{clips.store.path}: class {absent[0]!r} has val clips and no train clip to take a "
            "label from; prepare the data with train clips of each class"
        )
    rows = draw_labelled(clips.train.labels, share, options["seed"])
    precision = _precision(run)
    gpus = [run.device] if run.device.type == "cuda" else []
    # Dropout draws from PyTorch's own generator, which is left as it was.
    with (
        running_on(fitting(run.recipe.backend, run.device), run.device),
        torch.random.fork_rng(gpus),
    ):
        torch.manual_seed(options["seed"])
        model = Classifier(runs, clips, options["seed"])
        training = _Training(model, clips.train, rows, usual.scaled(options["epochs"]), options)
        fit = training.run(clips.val, precision, on_epoch)
    logits, labels = fit.pop("logits"), clips.val.labels
    per_class = per_class_accuracy(logits, labels, len(clips.classes))
    result = describe(run, protocol, clips, data, stream) | options | fit
    result |= {
        "labels": share,
        "labelled_clips": len(rows),
        "precision": precision,
        "per_class": dict(zip(distinct(clips.classes), per_class, strict=True)),
        "notes": list(clips.notes),
    }
    defaults = {"seed": 0, "epochs": usual.epochs, "lr": LR, "batch_size": BATCH_SIZE}
    changed = {"labels": share} if protocol == "semi" else {}
    changed |= {k: v for k, v in options.items() if v != defaults[k]} | of_route(clips, route)
    per_clip = PerClip.of_logits(clips.val.names, labels, clips.classes, logits)
    keep_result(run, clips.store, result, changed, per_clip, also)
    return result


def _precision(run: Run) -> str:
    """The run's own where its device multiplies it natively, else fp32."""
    asked = run.recipe.precision
    if asked == "auto":
        return choose_precision(run.device)
    return asked if is_native(asked, run.device) else "fp32"


class _Training:
    """SGD on the labelled clips of a split."""

    def __init__(
        self,
        model: Classifier,
        dataset: SkeletonDataset,
        rows: Tensor,
        schedule: Schedule,
        options: dict[str, Any],
    ):
        self.model, self.dataset, self.rows, self.schedule = model, dataset, rows, schedule
        self.lr, self.batch_size, self.seed = (options[k] for k in ("lr", "batch_size", "seed"))
        self.steps_per_epoch = math.ceil(len(dataset) / self.batch_size)
        self.optimizer = torch.optim.SGD(
            model.parameters(), self.lr, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
        )

    def run(self, val: SkeletonDataset, precision: str, on_epoch: OnEpoch | None) -> dict[str, Any]:
        """Train, and return the accuracies by the names of a result, and the last logits."""
        device, epochs = self.dataset.device, self.schedule.epochs
        scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        best = (-1.0, 0.0, 0)  # top-1, top-5 and the epoch
        order = torch.Generator().manual_seed(self.seed)
        for epoch in range(1, epochs + 1):
            loss = self._epoch(epoch - 1, order, precision, scaler)
            if not math.isfinite(loss):
                raise self._diverged(epoch, f"the loss is {loss}")
            note = f"loss {loss:.3f}"
            if epoch % _EVERY == 0 or epoch == epochs:
                logits = predict(self.model, val)
                if not logits.isfinite().all():
                    raise self._diverged(epoch, "a logit is not finite")
                top1, top5 = (top_k_accuracy(logits, val.labels, k) for k in (1, 5))
                best = max(best, (top1, top5, epoch), key=lambda x: x[0])
                note += f", top-1 {top1:.1f} %"
            if on_epoch:
                on_epoch(epoch, epochs, note)
        names = ("best_top1", "best_top5", "best_epoch")
        figures = dict(zip(names, best, strict=True))
        return {"top1": top1, "top5": top5, **figures, "loss": loss, "logits": logits}

    def _diverged(self, epoch: int, what: str) -> InputError:
        return InputError(
            f"finetuning diverged in epoch {epoch}: {what} with lr {self.lr:g}; choose a lower lr"
        )

    def _epoch(
        self, epoch: int, order: torch.Generator, precision: str, scaler: torch.amp.GradScaler
    ) -> float:
        """One pass; the mean loss."""
        self.model.train()
        total, count = torch.zeros((), device=self.dataset.device), 0
        for place, rows in enumerate(self._passes(order).split(self.batch_size)):
            step = epoch * self.steps_per_epoch + place
            for group in self.optimizer.param_groups:
                group["lr"] = self.schedule.rate(self.lr, step, self.steps_per_epoch)
            rows = rows.to(self.dataset.device)
            x = self.dataset.clips(self._layout, rows)
            with _autocast(precision, x.device):
                logits = self.model(x, self.dataset.bodies[rows])
                loss = F.cross_entropy(logits.float(), self.dataset.labels[rows])
            self.optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(self.optimizer)
            scaler.update()
            total += loss.detach() * len(rows)
            count += len(rows)
        return total.item() / count

    @property
    def _layout(self) -> str:
        return next(iter(self.dataset.layouts))

    def _passes(self, order: torch.Generator) -> Tensor:
        """As many clips as the split has: shuffled passes over the labelled ones."""
        count = math.ceil(len(self.dataset) / len(self.rows))
        passes = [self.rows[torch.randperm(len(self.rows), generator=order)] for _ in range(count)]
        return torch.cat(passes)[: len(self.dataset)]


def _autocast(precision: str, device: torch.device):
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])


@torch.no_grad()
def predict(model: Classifier, dataset: SkeletonDataset) -> Tensor:
    """Logits (N, classes) float32 of every clip of a split."""
    model.eval()
    (layout,) = dataset.layouts
    return torch.cat(
        [
            model(dataset.clips(layout, rows), dataset.bodies[rows]).float()
            for rows in torch.arange(len(dataset), device=dataset.device).split(BATCH)
        ]
    )
