"""Several processes agree on what runs: one of each machine tries, what is right on all runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from msclr.kernels import _choice
from msclr.kernels._qualify import children, store, verdicts
from msclr.kernels._qualify.machine import Machine
from tests.kernels.fake_operators import FAKE, fake
from tests.ranks import be_a_rank, run_ranks

CPU = torch.device("cpu")


def found_by(rank, local_rank, machine, backends, adopted):
    """What rank ``rank`` is left with: the order of backends, and which of them it tried."""
    tried = []

    def try_all(jobs, device, limits):
        tried.extend(job.backend for job in jobs)
        return {
            (job, family): store.Verdict(job.backend in adopted, "found", seconds=seconds)
            for job in jobs
            for family in job.families
            for seconds in [float(len(job.backend) if rank == 0 else -len(job.backend))]
        }

    os.environ["LOCAL_RANK"] = str(local_rank)
    children.try_all = try_all
    verdicts.describe = lambda device: Machine(machine, "sm_90", "", "", "")
    fake.backends = {name: fake.backends[name] for name in ("reference", *backends)}
    _choice._adopted.clear()
    verdicts.prepare("cpu", say=[].append)
    return {"order": fake.order(CPU, "single"), "tried": tuple(tried)}


def scenarios(rank):
    _choice.qualifying_types = ("cpu",)
    verdicts.SUBJECTS = {"tests.kernels.fake_operators:FAKE": FAKE}
    every = dict(fake.backends)
    made = {}

    def scenario(name, **given):
        fake.backends = dict(every)
        # No folder in common: what one process found reaches the other by the group alone.
        os.environ["XDG_CACHE_HOME"] = f"{sys.argv[3]}/{name} {rank}"
        made[name] = found_by(rank, **given)

    both = ("right", "slow", "wrong")
    scenario("one machine", local_rank=rank, machine="H100", backends=both, adopted=both[:2])
    unlike = both[:2] if rank == 0 else both[1:]
    scenario("two machines", local_rank=0, machine=f"H{rank}", backends=both, adopted=unlike)
    scenario("two alike", local_rank=0, machine="H100", backends=both, adopted=unlike)
    scenario("one lacks it", local_rank=0, machine=f"H{rank}", backends=unlike, adopted=both)
    scenario("none of the second kind tried", local_rank=rank, machine=f"H{rank}",
             backends=both, adopted=both)  # fmt: skip
    scenario("both are right", local_rank=0, machine=f"H{rank}", backends=both, adopted=both)
    assert dist.get_world_size() == 2
    return made


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return run_ranks(__file__, 2, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize(
    ("scenario", "order"),
    [
        ("one machine", ("slow", "right", "reference")),
        ("two machines", ("slow", "reference")),
        ("one lacks it", ("slow", "reference")),
        ("none of the second kind tried", ("reference",)),
        ("both are right", ("slow", "right", "wrong", "reference")),
    ],
)
def test_ranks_run_the_same(ranks, scenario, order):
    assert [rank[scenario]["order"] for rank in ranks] == [order] * 2


def test_machines_that_are_alike_go_by_the_first_that_tried(ranks):
    first, second = (rank["two alike"]["order"] for rank in ranks)
    assert first == second == ("slow", "right", "reference")


def test_one_process_of_a_machine_tries(ranks):
    assert [len(rank["one machine"]["tried"]) for rank in ranks] == [3, 0]
    assert [len(rank["two machines"]["tried"]) for rank in ranks] == [3, 3]


if __name__ == "__main__":
    Path(sys.argv[3]).mkdir(exist_ok=True)
    be_a_rank(scenarios)
