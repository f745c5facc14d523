"""Several gloo processes that find something together: a test file, run once for each rank.

In the file: a fixture that calls `run_ranks(__file__, world, folder)`, a function of the rank, and
at the end `if __name__ == "__main__": be_a_rank(function)`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = timedelta(minutes=4)  # on a busy machine the last rank may start late


def run_ranks(file: str, world: int, folder: Path) -> list[Any]:
    """What each rank found, in rank order."""
    module = ".".join(Path(file).resolve().relative_to(ROOT).with_suffix("").parts)
    command = [sys.executable, "-m", module]
    started = [
        subprocess.Popen([*command, str(rank), str(world), str(folder)], cwd=ROOT)
        for rank in range(world)
    ]
    try:
        assert [process.wait(timeout=300) for process in started] == [0] * world
    finally:
        for process in started:
            process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]


def be_a_rank(find: Callable[[int], Any]) -> None:
    """Join the other ranks, and leave what `find(rank)` returns for `run_ranks`."""
    rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=PATIENCE)
    torch.save(find(rank), folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
