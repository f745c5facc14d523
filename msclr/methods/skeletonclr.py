"""MS-SkeletonCLR: MoCo over pairs of skeleton layouts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from msclr import kernels
from msclr.methods.embedder import Batch, Embedder
from msclr.methods.momentum import momentum_copy, update_momentum
from msclr.methods.pairs import pair_up
from msclr.methods.queue import Queue, of_all_ranks


class StepOutput(NamedTuple):
    """What a method returns for a batch; ``keys`` go to :meth:`SkeletonCLR.enqueue` afterwards."""

    loss: Tensor  # scalar
    contrast_accuracy: Tensor  # scalar: how often the key outranks the whole queue
    keys: Tensor  # (R, E); (R, streams, E) where there are several


class SkeletonCLR(nn.Module):
    """Loss of a batch: ``CE([q.k, q.queue] / T, 0)``, q and k of two layouts of one clip.

    A step is ``out = method(batch); out.loss.backward(); optimizer.step();
    method.enqueue(out.keys)``: calling it moves the key encoder first, by the query weights
    from before the step, and the queue changes only afterwards, when the gradient is done.

    Args:
        encoder: an :class:`~msclr.nn.STGCN`.
        embedding_dim: length of the embeddings.
        queue_size: keys that the queue keeps, of all layouts together.
        queue_dtype: what the queue keeps them in.
        key_momentum: m of the key encoder.
        temperature: T.

    Source: MS-CLR (arXiv:2508.14889); SkeletonCLR in Li et al., "CrosSCLR" (CVPR 2021).
    """

    needs_extreme_view, needs_key_view = False, True
    all_layouts = False  # whether a step takes every layout of each clip, whatever the pairs
    per_stream = False  # whether it trains an encoder for each stream
    phase = None  # what changes a step's operators in the course of a run

    def __init__(
        self,
        encoder: nn.Module,
        *,
        embedding_dim: int = 128,
        queue_size: int = 32768,
        queue_dtype: torch.dtype = torch.float32,
        key_momentum: float = 0.999,
        temperature: float = 0.07,
    ):
        super().__init__()
        self.query = Embedder(encoder, embedding_dim)
        self.key = momentum_copy(self.query)
        self.queue = Queue(queue_size, embedding_dim, queue_dtype)
        self.key_momentum, self.temperature = key_momentum, temperature
        self.process_group = None

    def synchronise(self, process_group: object) -> None:
        """Train as one process with the batch of all ranks would (gradients: average them)."""
        self.process_group = process_group
        for embedder in (self.query, self.key):
            embedder.synchronise(process_group)

    def start_step(self, epoch: int) -> None:
        """Called before each step, with the epoch from 0 that it is in."""

    def forward(self, batch: Batch) -> StepOutput:
        keys = self._keys(batch)
        queries = self.query(batch.query)[None]  # (1, R, E)
        queries, positives = pair_up(queries, keys, batch.layouts_per_clip)
        bank = self.queue.keys
        out = kernels.info_nce(queries, positives, bank, self.temperature, top_k=1)
        accuracy = contrast_accuracy(queries[0], positives, bank, out.top_k[0])
        return StepOutput(out.loss[0].mean(), accuracy, keys)

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Put the keys of a step into the queue, all ranks' in rank order."""
        self.queue.enqueue(of_all_ranks(keys, self.process_group))

    @torch.no_grad()
    def _keys(self, batch: Batch) -> Tensor:
        update_momentum(self.key, self.query, self.key_momentum)
        return self.key(batch.key)  # (R, E)


@torch.no_grad()
def contrast_accuracy(queries: Tensor, keys: Tensor, bank: Tensor, nearest: Tensor) -> Tensor:
    """Share of queries (B, E) whose key is closer than the nearest bank row (B, 1 or more)."""
    rival = (queries * bank[nearest[:, 0]]).sum(1)
    return ((queries * keys).sum(1) > rival).float().mean()
