"""A training step asks nothing whose size depends on data: a GPU's host would wait for it."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from msclr.training import Pretraining
from msclr.training.distributed import Ranks
from tests.tiny import tiny_recipe

# Operators whose result's size, or whose value on the host, a device must say first.
WAITING = {"nonzero", "bincount", "_local_scalar_dense", "masked_select", "unique", "equal",
           "is_nonzero", "item", "repeat_interleave", "nonzero_static"}  # fmt: skip


class Recorder(TorchDispatchMode):
    """Names of the operators that are called, and whether one indexes by a mask."""

    def __init__(self):
        super().__init__()
        self.names, self.masks = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.partition("::")[2]
        self.names.append(name)
        if name in ("index", "index_put", "index_put_"):
            self.masks += [i for i in args[1] if i is not None and i.dtype == torch.bool]
        return func(*args, **(kwargs or {}))


CROSSCLR = {"method": "crossclr", "cross_epoch": 1}
KINDS = [
    *({"method": "aimclr", "pairs": pairs} for pairs in ("batch", "sample", "all")),
    *({"method": "skeletonclr", "pairs": pairs} for pairs in ("batch", "sample", "all")),
    *({**CROSSCLR, "pairs": pairs} for pairs in ("batch", "sample", "all")),
    {**CROSSCLR, "pairs": "sample", "context": False},
    {"method": "multiview"},
    {"method": "multiview", "negatives": "batch", "queue_size": 13},
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_a_step_has_no_operator_that_waits(kind, data, tmp_path):
    run = Pretraining(tiny_recipe(data, tmp_path, **kind), Ranks(), torch.device("cpu"))
    for step in range(7):  # the second epoch mines
        with Recorder() as seen:
            run.step(step)
        assert not WAITING & set(seen.names) and not seen.masks
    contrast = {"crossclr": "topk", "multiview": "multi_view_info_nce"}
    contrast = contrast.get(kind["method"], "info_nce") if kind.get("context", 1) else "info_nce"
    assert contrast in seen.names and "_fused_sgd_" in seen.names
    run.close()
