"""Sizes that are rounded up: steps of a bucket are alike, and compute what they would without."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from msclr.nn.tracks import capacity
from msclr.training import Pretraining
from msclr.training.distributed import Ranks
from msclr.training.graph import bucket_of
from tests.tiny import tiny_recipe
from tests.training.test_no_waiting import WAITING


def started(data, out, buckets, **changes):
    run = Pretraining(tiny_recipe(data, out, **changes), Ranks(), torch.device("cpu"))
    run.views.buckets = run.recipe.bodies if buckets else None
    return run


class Launches(TorchDispatchMode):
    """Each operator that is called, with the sizes of what it is given."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        leaves = pytree.tree_leaves((args, kwargs))
        sizes = [tuple(x.shape) for x in leaves if torch.is_tensor(x)]
        self.calls.append((func.name(), *sizes))
        return func(*args, **(kwargs or {}))


KINDS = [
    {"method": "aimclr", "pairs": "batch"},
    {"method": "aimclr", "pairs": "sample"},
    {"method": "aimclr", "pairs": "all", "bodies": "all"},
    {"method": "crossclr", "pairs": "sample", "cross_epoch": None},
    {"method": "multiview"},
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_steps_of_a_bucket_call_the_same_operators_on_the_same_sizes(kind, data, tmp_path):
    steps = 9  # in two epochs
    changes = {"mining_epoch": None} if kind["method"] == "aimclr" else {}
    run = started(data, tmp_path, True, **kind, **changes)
    draws = [run.sampler.draw(step) for step in range(steps + 1)]
    run.sampler.draw = draws.__getitem__  # an epoch's order is made on the host
    calls, drawn = defaultdict(list), defaultdict(set)
    for step in range(steps):
        batch = run.views(run._draw(step), step)
        bucket = bucket_of(batch)
        views = batch if kind["method"] != "crossclr" else batch["joint"]
        counts = [int(view.bodies.count) for view in views.query.values()]
        drawn[bucket].add((tuple(counts), *(tuple(v.rows.tolist()) for v in views.query.values())))
        with Launches() as seen:
            run.step(step)
        if step:  # the first makes the momenta
            calls[bucket].append(seen.calls)
    assert max(map(len, calls.values())) >= 3
    for found in calls.values():
        for again in found:
            unlike = [(a, b) for a, b in zip(again, found[0], strict=False) if a != b]
            assert not unlike and len(again) == len(found[0])
        assert not WAITING & {name.partition("::")[2].partition(".")[0] for name, *_ in found[0]}
    if kind.get("bodies") != "all":
        assert max(map(len, drawn.values())) > 1, "bodies or layouts differ in a bucket"
    run.close()


def in_float64(batch):
    return pytree.tree_map(
        lambda x: x.double() if torch.is_tensor(x) and x.dtype == torch.float32 else x, batch
    )


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_buckets_change_no_loss_gradient_or_statistic(kind, fused, data, tmp_path, monkeypatch):
    if not fused:
        kind = kind | {"dropout": 0.0}  # the modules draw theirs from sizes
        for module in ("block", "stgcn"):
            monkeypatch.setattr(f"msclr.nn.{module}.can_fuse", lambda *_: False)
    found = []
    for buckets in (False, True):
        run = started(data, tmp_path / str(buckets), buckets, **kind)
        run.method.double()
        for step in range(2):
            torch.manual_seed(step)
            out = run.method(in_float64(run.views(run._draw(step), step)))
            out.loss.backward()
            run.method.enqueue(out.keys)
        gradients = {n: p.grad for n, p in run.method.named_parameters() if p.grad is not None}
        assert len(gradients) > 50
        found.append({"loss": out.loss, "accuracy": out.contrast_accuracy, "keys": out.keys}
                     | gradients | dict(run.method.named_buffers()))  # fmt: skip
        run.close()
    off, on = found
    assert off.keys() == on.keys()
    for name, wanted in off.items():
        torch.testing.assert_close(on[name], wanted, rtol=1e-8, atol=1e-10, msg=name)


def test_few_sizes_hold_any_number_with_little_surplus():
    sizes = {capacity(n) for n in range(1025)}
    assert len(sizes) == 8 + 4 * 8  # 8, 16 .. 64, then eight an octave
    for n in range(1, 1025):
        assert n <= capacity(n) <= max(n + 7, n * 9 // 8)
    assert capacity(0) == 8
