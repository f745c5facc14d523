"""What a run says of itself as it begins, and what it warns of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from msclr import kernels
from msclr.method_keys import READS
from msclr.training.precision import describe

if TYPE_CHECKING:
    from msclr.training.pretrain import Pretraining

_MINING = {"mining_epoch": "neighbours are", "cross_epoch": "neighbours across streams are"}


def header(run: Pretraining, step: int) -> list[str]:
    """Lines on the clips, the device, the steps and the output of a run that has done ``step``."""
    recipe, store = run.recipe, run.dataset.parts[0].store
    lines = []
    for part in run.dataset.parts:
        names = (f"{x} (derived)" if x in part.derived else x for x in part.whole)
        lines.append(f"{part.store.path}: {part.clips} clips under {', '.join(names)}")
    for name in run.dataset.about()["sub_layouts"]:
        lines.append(f"{name}: {' '.join(run.dataset.layouts[name].joints)}")
    where = "on the device" if run.dataset.resident else "streamed to the device"
    lines.append(f"{store.frames} frames, frame {store.frame}, {recipe.data_precision}, {where}")
    lines.append(f"device {_device(run)}")
    lines.append(describe(recipe.precision, run.asked_precision, run.device))
    lines.append(f"backend {_backend(run)}")
    every = recipe.checkpoint_every or run.steps_per_epoch
    kept = f", one kept every {recipe.keep_every} epochs" if recipe.keep_every else ""
    lines.append(
        f"{run.steps} steps of {recipe.batch_size} clips, {run.steps_per_epoch} an epoch; a "
        f"checkpoint every {every} steps{kept}"
    )
    lines += [run.initial] if run.initial else []
    lines.append(f"output {run.folder}")
    if step:
        lines.append(f"resuming from step {step} of {run.steps}")
    return lines


def notices(run: Pretraining) -> list[str]:
    """What of a recipe is probably not meant, a line each."""
    recipe, clips = run.recipe, len(run.dataset)
    reads, found = READS[recipe.method], []
    if "queue_size" in reads and recipe.queue_size > clips:
        found.append(
            f"the queue holds {recipe.queue_size} keys of {clips} clips, so each clip is among its "
            f"own negatives; a queue_size below {clips} learns more on few clips"
        )
    if recipe.batch_size > clips:
        found.append(
            f"a batch of {recipe.batch_size} shows some of the {clips} clips more than once; "
            f"choose a batch_size of {clips} at most"
        )
    elif recipe.method == "multiview" and (smallest := _smallest_class(run)) < recipe.batch_size:
        classes = len(run.dataset.classes)
        share = recipe.batch_size / max(classes, 1)
        if share > smallest:
            found.append(
                f"a batch of {recipe.batch_size} has about {share:.0f} clips of each of the "
                f"{classes} classes, the smallest of which has {smallest}: choose a smaller batch"
            )
    for key in _MINING.keys() & reads:
        epoch = getattr(recipe, key)
        if epoch is not None and epoch * run.steps_per_epoch >= run.steps:
            end, half = run.steps / run.steps_per_epoch, run.steps // (2 * run.steps_per_epoch)
            mend = f"the papers begin half-way, {key}={half}" if half else f"{key}=null says so"
            found.append(
                f"{key}={epoch} lies beyond the run's end (epoch {end:.4g}), so {_MINING[key]} "
                f"never mined; {mend}"
            )
    return found


def _device(run: Pretraining) -> str:
    kind = f"{torch.get_num_threads()} threads"
    if run.device.type == "cuda":
        kind = torch.cuda.get_device_name(run.device)
    processes = f", {run.ranks.size} processes" if run.ranks.size > 1 else ""
    return f"{run.device} ({kind}{processes})"


def _backend(run: Pretraining) -> str:
    """The backends that operators run on, most of them first."""
    if run.recipe.backend != "auto":
        return run.recipe.backend
    operators = kernels.would_run(run.device.type)
    names = [name for of_operator in operators.values() for name in of_operator.values()]
    found = sorted(set(names), key=names.count, reverse=True)
    return f"{', '.join(found)} (auto)"


def _smallest_class(run: Pretraining) -> int:
    return int(torch.bincount(run.dataset.labels.cpu()).min())
