"""Several processes that train as one would with the whole batch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from msclr.errors import InputError


class Ranks:
    """This process among those of a run; ``group`` is None where it is alone.

    ``host_group`` is of the same processes and exchanges numbers without a GPU.
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        group: object | None = None,
        host_group: object | None = None,
    ):
        self.rank, self.size, self.group = rank, size, group
        self._host_group = host_group or group

    @property
    def host_group(self) -> object | None:
        """The processes' group for what is exchanged without a GPU; None for one process."""
        return self._host_group

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, rows: Tensor) -> Tensor:
        """This rank's rows of a global batch, a block of consecutive ones."""
        return rows.view(self.size, -1, *rows.shape[1:])[self.rank]

    def check_batch(self, batch_size: int) -> None:
        if batch_size % self.size:
            raise InputError(f"batch_size {batch_size} does not divide among {self.size} processes")

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the ranks, in one exchange."""
        if self.group is None:
            return
        gradients = [p.grad for p in parameters]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat, group=self.group)
        flat /= self.size
        for gradient, part in zip(
            gradients, flat.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))

    def mean(self, x: Tensor) -> Tensor:
        """The mean of a tensor over the ranks."""
        if self.group is None:
            return x
        x = x.clone()
        dist.all_reduce(x, group=self.group)
        return x / self.size

    def most(self, number: int) -> int:
        """The largest of the ranks' numbers, the same on all of them; no device is waited for."""
        if self.group is None:
            return number
        x = torch.tensor(number)
        dist.all_reduce(x, dist.ReduceOp.MAX, group=self._host_group)
        return int(x)

    def barrier(self) -> None:
        if self.group is not None:
            dist.barrier(group=self.group)


def own_device(device: torch.device) -> torch.device:
    """Of the processes that torchrun started on this machine, each has a GPU of its own.

    Raises InputError where there are fewer GPUs than processes: NCCL wants one for each.
    """
    if device.type != "cuda" or "LOCAL_RANK" not in os.environ:
        return device
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    count = torch.cuda.device_count()
    if processes > (count if device.index is None else 1):
        here = f"{count} GPU{'s' * (count != 1)}" if device.index is None else f"{device} alone"
        raise InputError(
            f"{processes} processes would share {here}: start --nproc-per-node {count}, with "
            "device=cuda"
        )
    if device.index is not None:
        return device
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))


@contextmanager
def ranks_of(device: torch.device):
    """The ranks that torchrun started, or this process alone; the group ends with the block."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        host_group = dist.new_group(backend="gloo") if on_gpu else None
        yield Ranks(dist.get_rank(), size, dist.group.WORLD, host_group)
    finally:
        dist.destroy_process_group()
