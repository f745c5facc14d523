"""The ceiling: the same network trained with the labels of the training people."""

from __future__ import annotations

from contextlib import closing, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msclr.config import Recipe
from msclr.data.dataset import SkeletonDataset
from msclr.encoder.features import BATCH, encode
from msclr.evaluation import ensemble_logits
from msclr.evaluation.metrics import top_k_accuracy
from msclr.nn import STGCN
from msclr.training import Pretraining
from msclr.training.batches import ViewMaker
from msclr.training.distributed import Ranks
from msclr.training.precision import DTYPES
from msclr.training.schedule import learning_rate


def supervised(recipe: Recipe) -> dict[str, float]:
    """Top-1 in percent on the val clips: "linear L" of each layout, and "ensemble" of several.

    Encoder, augmentations, clips a step, steps, rate and schedule are the recipe's, the optimiser
    AdamW; each clip is seen under a layout drawn for it.
    """
    with closing(Pretraining(recipe, Ranks(), torch.device("cpu"))) as run:
        encoder = run.method.query.encoder.train()
        classifier = nn.Linear(encoder.hidden_dim, len(run.dataset.classes))
        _train(run, classifier)
    encoder.eval()
    val = SkeletonDataset(recipe.data, "val", recipe.layouts, derive=recipe.derive or ())
    with torch.no_grad():
        logits = {name: _logits(recipe, val, encoder, classifier, name) for name in val.layouts}
    figures = {f"linear {n}": top_k_accuracy(x, val.labels, 1) for n, x in logits.items()}
    if len(logits) > 1:
        total = ensemble_logits([x.softmax(dim=1) for x in logits.values()])
        figures["ensemble"] = top_k_accuracy(total, val.labels, 1)
    return figures


def _train(run: Pretraining, classifier: nn.Module) -> None:
    recipe, data, model = run.recipe, run.dataset, run.method.query
    views = ViewMaker(data, recipe.stream, "sample", recipe.seed, extreme=False)
    parameters = [*model.encoder.parameters(), *classifier.parameters()]
    optimizer = torch.optim.AdamW(parameters, recipe.lr, weight_decay=recipe.weight_decay)
    autocast = nullcontext()
    if recipe.precision != "fp32":
        autocast = torch.autocast(data.device.type, dtype=DTYPES[recipe.precision])
    for step in range(run.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, run.steps, run.steps_per_epoch)
        draw = run.sampler.draw(step)
        with autocast:
            features = model.features(views(draw, step).query)  # (B, D)
        loss = F.cross_entropy(classifier(features.float()), data.labels[draw.clips])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _logits(
    recipe: Recipe, data: SkeletonDataset, encoder: STGCN, classifier: nn.Module, layout: str
) -> Tensor:
    """Of every clip under a layout, (N, classes)."""
    found = []
    for index in torch.arange(len(data)).split(BATCH):
        x = data.clips(layout, index)
        features = encode(encoder, x, data.bodies[index], layout, recipe.stream, data.planar)
        found.append(classifier(features))
    return torch.cat(found)
