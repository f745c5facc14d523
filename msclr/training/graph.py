"""Steps as CUDA graphs: one is captured for each bucket of sizes, and replayed on its next batches.

A replay launches a whole step at once, which a host may take longer to launch than a GPU to do. It
reads and writes the memory that it was captured with: a batch, its seeds and the learning rate are
copied there, parameters, statistics, momenta and queue are there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from msclr.config import Recipe
from msclr.errors import InputError
from msclr.host import to_device
from msclr.nn.fused import seeds_from

_WARM_UP = 3  # steps of a run before the first capture
_MOST = 64  # graphs; each holds its batch, all share the rest of their memory
_SEEDS = 32  # of passes with dropout; more than a step has

logger = logging.getLogger(__name__)


class Recorder(Protocol):
    """What captures; :class:`CudaGraphs`, or a stand-in where there is no GPU."""

    def warm_up(self, run: Callable[[], Tensor]) -> Tensor:
        """Run once, as a capture would."""

    def capture(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """What runs it again on the same memory; ``run`` is called once, and computes nothing."""


class CudaGraphs:
    """Captures into graphs that share their memory, for they run one after the other."""

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def warm_up(self, run: Callable[[], Tensor]) -> Tensor:
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            made = run()
        current.wait_stream(self.stream)
        return made

    def capture(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self.device)
        # Other threads may go on with memory of their own, as one that brings clips does.
        with torch.cuda.graph(
            graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"
        ):
            made = run()

        def replay() -> Tensor:
            graph.replay()
            return made

        return replay


class _Captured(NamedTuple):
    """A graph, and the batch that it reads."""

    replay: Callable[[], Tensor]
    leaves: list[Any]


class GraphedSteps:
    """Runs ``update(batch)``, which makes a step of a batch and returns (n,) numbers to keep.

    The first steps of a run, and the first of each bucket, are run as they are, so that all that is
    made once is there. Where a capture fails, one line says so and all steps are.

    Args:
        update: reads nothing that changes from step to step but the batch, ``rate`` and tensors
            that it writes itself.
        recorder: what captures.
        device: where the batches are.
    """

    def __init__(self, update: Callable[[Any], Tensor], recorder: Recorder, device: torch.device):
        self.update, self.recorder, self.device = update, recorder, device
        self.rate = torch.zeros((), device=device)
        self.seeds = torch.zeros(_SEEDS, dtype=torch.int64, device=device)
        self.failed = False
        self._done = 0
        self._known: dict[Hashable, _Captured | None] = {}

    def __call__(self, batch: Any, rate: float, phase: Hashable) -> Tensor:
        """What ``update`` returns for a batch; its seeds are drawn from PyTorch's generator.

        ``phase`` is what else changes what a step does, which is then captured for each.
        """
        self.rate.fill_(rate)
        seeds = torch.randint(2**63 - 1, (_SEEDS,))  # the same numbers as one by one
        self.seeds.copy_(to_device(seeds.numpy(), self.device))
        key = bucket_of(batch), phase
        found = self._known.get(key)
        if found is None and self._ready(key):
            found = self._capture(key, batch)
        if found is None:
            self._done += 1
            if not self.failed:
                self._known.setdefault(key, None)
                return self.recorder.warm_up(lambda: self._run(batch))
            return self._run(batch)
        for to, value in zip(found.leaves, pytree.tree_leaves(batch), strict=True):
            if torch.is_tensor(to):
                to.copy_(value)
        return found.replay().clone()

    def _ready(self, key: Hashable) -> bool:
        captured = sum(known is not None for known in self._known.values())
        seen = key in self._known and self._done >= _WARM_UP
        return seen and captured < _MOST and not self.failed

    def _capture(self, key: Hashable, batch: Any) -> _Captured | None:
        own = pytree.tree_map(lambda x: x.clone() if torch.is_tensor(x) else x, batch)
        try:
            replay = self.recorder.capture(lambda: self._run(own))
        except Exception as error:
            self.failed = True
            why = (str(error) or type(error).__name__).partition("\n")[0]
            logger.warning("steps run without CUDA graphs, for one could not be captured: %s", why)
            return None
        self._known[key] = captured = _Captured(replay, pytree.tree_leaves(own))
        return captured

    def _run(self, batch: Any) -> Tensor:
        with seeds_from(self.seeds):
            return self.update(batch)


def why_no_graphs(
    recipe: Recipe, device: torch.device, processes: int, data_sets: int
) -> str | None:
    """Why the steps of a run are not captured; None where they are, as far as can be known.

    Raises InputError where the recipe asks for what cannot be.
    """
    if recipe.cuda_graph == "off":
        return "the recipe says cuda_graph=off"
    why = None
    if device.type != "cuda":
        why = f"they are for a GPU, and the device is {device.type}"
    elif processes > 1:
        why = f"they are for one process, and there are {processes}"
    elif data_sets > 1:
        why = f"they are for one data set, and there are {data_sets}"
    elif recipe.padding != "none":
        why = f"they are for padding=none, and it is {recipe.padding}"
    if why and recipe.cuda_graph == "on":
        raise InputError(f"cuda_graph=on, but no step can be captured: {why}; use auto or off")
    return why


def bucket_of(batch: Any) -> Hashable:
    """What batches have in common that one graph can do: all but the numbers in their tensors."""
    leaves, structure = pytree.tree_flatten(batch)
    sizes = [(tuple(x.shape), x.dtype, x.device) if torch.is_tensor(x) else x for x in leaves]
    return tuple(sizes), str(structure)
