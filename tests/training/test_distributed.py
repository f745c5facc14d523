"""Two processes give the run of one with the same global batch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from msclr.errors import InputError
from msclr.methods import Batch, View
from msclr.training import Pretraining, pretrain
from msclr.training.batches import ViewMaker
from msclr.training.checkpoint import load_checkpoint
from msclr.training.distributed import Ranks, own_device
from tests.tiny import BATCH, column, tiny_recipe, write_recipe

WITHIN = 1e-5  # of the loss, which is of order 5
MODES = {
    "batch": {"pairs": "batch"},
    "all": {"pairs": "all"},
    "sample": {"pairs": "sample"},
    # Of clips that are embedded alike the nearest slots are so near a tie (1e-7 in the cosine) that
    # rounding chooses between them, in a run of one process too whose weights are changed by 1e-7.
    # So many are mined that the last one and the first one left out are random vectors, far apart.
    "crossclr": {"method": "crossclr", "cross_epoch": 1, "queue_size": 64, "mining_top_k": 60},
    "multiview": {"method": "multiview", "queue_size": 13, "lr": 1e-7},
}
# Dropout's numbers are a process's own. With a larger rate than the tiny recipe's the rounding of
# the first steps grows beyond any bound within ten steps.
CHANGES = {"dropout": 0.0, "steps": 8}
# Each run gets a port of its own; all of them share the start of the two processes.
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
def two(data, tmp_path_factory):
    """Runs of two processes that torchrun started, in a folder by their mode."""
    folder = tmp_path_factory.mktemp("two")
    recipes = [
        write_recipe(folder / f"{mode}.yaml", data, folder / mode, **changes, **CHANGES)
        for mode, changes in MODES.items()
    ]
    worker = folder / "worker.py"
    worker.write_text(WORKER)
    port = str(20_000 + 10 * (os.getpid() % 2_000))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", port]
    command += [str(worker), port, *map(str, recipes)]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        try:
            process.wait(400)
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun then ends its two
            process.wait(30)
    return folder


@pytest.fixture(scope="module")
def one(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    for mode, changes in MODES.items():
        pretrain(tiny_recipe(data, folder / mode, **changes, **CHANGES))
    return folder


@pytest.mark.parametrize("mode", MODES)
def test_two_processes_have_the_losses_of_one(mode, one, two):
    assert (two / mode / "checkpoint.pt").exists(), (two / "output").read_text()[-3000:]
    losses = [torch.tensor([float(x) for x in column(f / mode)]) for f in (one, two)]
    assert len(losses[0]) == 8
    torch.testing.assert_close(losses[1], losses[0], rtol=WITHIN, atol=WITHIN)


@pytest.mark.parametrize("mode", MODES)
def test_two_processes_end_with_the_weights_queue_and_momentum_of_one(mode, one, two):
    assert (two / mode / "checkpoint.pt").exists(), (two / "output").read_text()[-3000:]
    mine, theirs = (load_checkpoint(f / mode / "checkpoint.pt") for f in (two, one))
    pointers = [key for key in theirs["method"] if key.endswith("_extra_state")]
    assert pointers
    for key in pointers:
        assert mine["method"].pop(key) == theirs["method"].pop(key)
    for key, wanted in theirs["method"].items():
        torch.testing.assert_close(
            mine["method"][key],
            wanted,
            rtol=1e-4,
            atol=1e-5,
            msg=lambda text, key=key: f"{key}: {text}",
        )
    # Momenta are sums of gradients: in the weights a rate so small would hide a wrong one. All
    # together, for a bias that a batch norm takes out again has a gradient of rounding alone.
    mine, theirs = (
        torch.cat([x["momentum_buffer"].flatten() for x in s["optimizer"]["state"].values()])
        for s in (mine, theirs)
    )
    assert (mine - theirs).norm() <= 1e-3 * theirs.norm()


@pytest.mark.parametrize("mode", MODES)
def test_the_losses_vary_far_more_than_the_tolerance(mode, one):
    """With all clips embedded alike the loss would be a constant, and prove nothing."""
    losses = torch.tensor([float(x) for x in column(one / mode)])
    assert losses.diff().abs().min() > 100 * WITHIN


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


@pytest.fixture
def alone():
    """A process group of this process only."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=store)
    yield torch.distributed.group.WORLD
    torch.distributed.destroy_process_group()


def test_a_layout_that_no_rank_has_a_clip_of_keeps_its_statistics(
    alone, data, tmp_path, monkeypatch
):
    run = Pretraining(tiny_recipe(data, tmp_path), Ranks(0, 1, alone), torch.device("cpu"))
    make = ViewMaker.__call__
    monkeypatch.setattr(ViewMaker, "__call__", lambda *arguments: one_layout(make(*arguments)))
    before = run.method.query.encoder.input_norm["kinectv1_20"].running_mean.clone()
    run.step(0)
    state = run.method.state_dict()
    assert all(v.isfinite().all() for v in state.values() if torch.is_tensor(v))
    assert run.method.query.encoder.input_norm["kinectv1_20"].running_mean.equal(before)


def one_layout(batch):
    """The batch as if every clip had drawn the first layout, whose few rows are repeated."""

    def only_first(views):
        first, second = views.values()
        rows = torch.arange(BATCH) % len(first.x)
        first = View(first.x[rows], torch.arange(BATCH), first.bodies[rows])
        second = View(second.x[:0], torch.arange(0), second.bodies[:0])
        return dict(zip(views, (first, second), strict=True))

    return Batch(*map(only_first, (batch.query, batch.key, batch.extreme)))


def test_each_process_of_a_machine_has_another_gpu(monkeypatch):
    cuda, environment = torch.device("cuda"), {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert own_device(cuda) == cuda  # one process, which torchrun did not start
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert own_device(cuda) == torch.device("cuda:1")
    assert own_device(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(InputError, match="2 processes would share cuda:0 alone"):
        own_device(torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="2 processes would share 1 GPU: start --nproc-per-node 1"):
        own_device(cuda)


def test_a_batch_that_does_not_divide_among_the_processes_is_refused():
    Ranks(0, 2).check_batch(8)
    with pytest.raises(InputError, match="batch_size 8 does not divide among 3 processes"):
        Ranks(0, 3).check_batch(8)
