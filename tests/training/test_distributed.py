"""Two processes give the run of one with the same global batch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from msclr.errors import InputError
from msclr.training import pretrain
from msclr.training.checkpoint import load_checkpoint
from msclr.training.distributed import Ranks
from tests.tiny import column, prepare_tiny, tiny_recipe, write_recipe

# Rounding differs between one and two processes; the loss is of order 5.
WITHIN = 1e-5
RUNS = {
    "batch": {"pairs": "batch"},
    "sample": {"pairs": "sample"},
    "all": {"pairs": "all"},
    "skeletonclr": {"method": "skeletonclr", "pairs": "sample"},
}
# Each run gets a port of its own; all of them share the start of two processes.
WORKER = """
import os, sys
from msclr.cli import main
for i, recipe in enumerate(sys.argv[2:]):
    if i:
        os.environ.pop("TORCHELASTIC_USE_AGENT_STORE", None)
        os.environ["MASTER_PORT"] = str(int(sys.argv[1]) + i)
    status = main(["pretrain", recipe])
    if status:
        sys.exit(status)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepare_tiny(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="module")
def two(data, tmp_path_factory):
    """The runs of two processes that torchrun started: {name: folder}."""
    folder = tmp_path_factory.mktemp("two")
    recipes = [
        write_recipe(folder / f"{name}.yaml", data, folder / name, dropout=0.0, **changes)
        for name, changes in RUNS.items()
    ]
    worker = folder / "worker.py"
    worker.write_text(WORKER)
    port = 20_000 + 10 * (os.getpid() % 2_000)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    done = subprocess.run(
        [*torchrun, str(worker), str(port), *map(str, recipes)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: folder / name for name in RUNS}


@pytest.fixture(scope="module")
def one(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    return {
        name: pretrain(tiny_recipe(data, folder / name, dropout=0.0, **changes))
        for name, changes in RUNS.items()
    }


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_have_the_losses_of_one(name, one, two):
    losses = [torch.tensor([float(x) for x in column(runs[name])]) for runs in (one, two)]
    assert len(losses[0]) == len(losses[1]) == 12
    torch.testing.assert_close(*losses, rtol=WITHIN, atol=WITHIN)
    assert column(one[name], "contrast_accuracy") == column(two[name], "contrast_accuracy")


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_end_with_the_weights_statistics_and_queue_of_one(name, one, two):
    states = [load_checkpoint(runs[name] / "checkpoint.pt") for runs in (one, two)]
    methods = [state["method"] for state in states]
    assert methods[0].pop("queue._extra_state") == methods[1].pop("queue._extra_state")
    assert methods[0].keys() == methods[1].keys()
    for key, value in methods[0].items():
        # Where a layout has no clip in a batch, one process leaves its count alone.
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(
                methods[1][key], value, rtol=1e-3, atol=1e-4, msg=lambda m, key=key: f"{key}: {m}"
            )


def test_the_losses_are_not_of_a_kind_that_could_hide_a_difference(one):
    """Dropping to a constant, as with all clips embedded alike, would prove nothing."""
    for run in one.values():
        losses = torch.tensor([float(x) for x in column(run)])
        assert losses.diff().abs().min() > 10 * WITHIN


def test_a_rank_takes_its_block_of_rows():
    rows = torch.arange(12).view(6, 2)
    assert torch.cat([Ranks(i, 3).share(rows) for i in range(3)]).equal(rows)
    assert Ranks(1, 3).share(rows).equal(rows[2:4])


def test_one_process_exchanges_nothing():
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([1.0, 2.0])
    Ranks().average_gradients([weight])
    assert weight.grad.equal(torch.tensor([1.0, 2.0]))
    assert Ranks().mean(weight.grad) is weight.grad and Ranks().first


def test_a_batch_that_does_not_divide_among_the_processes_is_refused():
    Ranks(0, 2).check_batch(8)
    with pytest.raises(InputError, match="batch_size 8 does not divide among 3 processes"):
        Ranks(0, 3).check_batch(8)
