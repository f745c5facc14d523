"""MS-CrosSCLR: an encoder for each stream, and neighbours that one stream finds for the others."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from msclr import kernels
from msclr.methods.embedder import Batch, Embedder
from msclr.methods.momentum import momentum_copy, update_momentum
from msclr.methods.pairs import pair_up
from msclr.methods.queue import Queue, of_all_ranks
from msclr.methods.skeletonclr import StepOutput, contrast_accuracy


class CrosSCLR(nn.Module):
    """Loss of a batch: the sum over streams v of InfoNCE, then of the mean over u != v of L(v | u).

    Each stream has a query and a key encoder and a queue; slot j of all queues is the same clip.
    With a_v = q_v.queue_v (B, Q), and the ``mining_top_k`` slots with the largest a_u as positives
    besides the key::

        L(v | u) = - mean over positives of log softmax([q_v.k_v, a_v, a_u * a_v] / T)

    The slots are positive in both parts, a_v and the context a_u * a_v, through which both streams
    get gradients. Without ``context`` there is no third part. Use as
    :class:`~msclr.methods.SkeletonCLR`; ``query.<stream>.encoder`` are the encoders.

    Args:
        encoders: {stream: encoder}, two or more, which all see the same augmented clips.
        embedding_dim, queue_size, queue_dtype, key_momentum, temperature: as in
            :class:`~msclr.methods.SkeletonCLR`, for each stream.
        cross_epoch: the epoch, from 0, whose steps are the first to mine; None: never.
        mining_top_k: how many slots each stream finds for the others.
        context: see above.

    Source: Li et al., "CrosSCLR" (CVPR 2021), eq. 4 to 9. As the paper means it: all key encoders
    start as copies and move in every step, and each stream has a head of its own. In its released
    code only that of motion moves after the warm-up, and all three share the joint's head.
    """

    needs_extreme_view, needs_key_view = False, True
    all_layouts, per_stream = False, True
    crossing = False

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        *,
        embedding_dim: int = 128,
        queue_size: int = 32768,
        queue_dtype: torch.dtype = torch.float32,
        key_momentum: float = 0.999,
        temperature: float = 0.07,
        cross_epoch: int | None = 150,
        mining_top_k: int = 1,
        context: bool = True,
    ):
        super().__init__()
        self.query = nn.ModuleDict({s: Embedder(e, embedding_dim) for s, e in encoders.items()})
        self.key = momentum_copy(self.query)
        self.queue = nn.ModuleDict(
            {s: Queue(queue_size, embedding_dim, queue_dtype) for s in encoders}
        )
        self.key_momentum, self.temperature = key_momentum, temperature
        self.cross_epoch, self.mining_top_k, self.context = cross_epoch, mining_top_k, context
        self.process_group = None

    def synchronise(self, process_group: object) -> None:
        """Train as one process with the batch of all ranks would (gradients: average them)."""
        self.process_group = process_group
        for embedder in (*self.query.values(), *self.key.values()):
            embedder.synchronise(process_group)

    @property
    def phase(self) -> bool:
        return self.crossing

    def start_step(self, epoch: int) -> None:
        """Called before each step, with the epoch from 0 that it is in."""
        self.crossing = self.cross_epoch is not None and epoch >= self.cross_epoch

    def forward(self, batches: Mapping[str, Batch]) -> StepOutput:
        """The loss of a batch that is given for each stream, of the same clips and layouts."""
        streams, (batch, *_) = list(self.query), batches.values()
        with torch.no_grad():
            update_momentum(self.key, self.query, self.key_momentum)
            keys = torch.stack([self.key[s](batches[s].key) for s in streams], dim=1)  # (R, S, E)
        queries = torch.stack([self.query[s](batches[s].query) for s in streams])  # (S, R, E)
        queries, positives = pair_up(queries, keys, batch.layouts_per_clip)
        positives = positives.transpose(0, 1).contiguous()  # (S, B, E)
        banks = [self.queue[s].keys for s in streams]  # S of (Q, E)
        if self.crossing and self.context:
            losses, accuracy = self._with_context(queries, positives, banks)
        else:
            losses, accuracy = self._without_context(queries, positives, banks)
        return StepOutput(torch.stack(losses).sum(), accuracy, keys)

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Put the keys of a step (R, S, E) into the queues, all ranks' in rank order."""
        keys = of_all_ranks(keys, self.process_group)
        for queue, of_stream in zip(self.queue.values(), keys.unbind(1), strict=True):
            queue.enqueue(of_stream)

    def _without_context(
        self, queries: Tensor, keys: Tensor, banks: list[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """The streams' losses, and the mean of their contrast accuracies."""
        top_k = self.mining_top_k if self.crossing else 1
        streams = list(zip(queries, keys, banks, strict=True))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.crossing):
            alone = [self._info_nce(*stream, top_k=top_k) for stream in streams]
        nearest = [out.top_k[0] for out in alone]  # S of (B, top_k)
        accuracy = _mean_accuracy(streams, nearest)
        if not self.crossing:
            return [out.loss.mean() for out in alone], accuracy
        losses = []
        for v, (q, k, bank) in enumerate(streams):
            mined = torch.cat(nearest[:v] + nearest[v + 1 :])  # (partners * B, top_k)
            times = len(nearest) - 1
            out = self._info_nce(q.repeat(times, 1), k.repeat(times, 1), bank, positives=mined)
            losses.append(out.loss.mean())
        return losses, accuracy

    def _info_nce(self, queries: Tensor, keys: Tensor, bank: Tensor, **options):
        return kernels.info_nce(queries[None], keys, bank, self.temperature, **options)

    def _with_context(
        self, queries: Tensor, keys: Tensor, banks: list[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """As :meth:`_without_context`; in PyTorch, for a logit is of two queues."""
        with torch.autocast(queries.device.type, enabled=False):
            streams = list(zip(queries, keys, banks, strict=True))
            similarity = [q @ bank.to(q.dtype).T for q, _, bank in streams]  # S of (B, Q)
            nearest = [a.detach().topk(self.mining_top_k).indices for a in similarity]
            to_key = torch.stack([(q * k).sum(1) for q, k, _ in streams])  # (S, B)
            losses = _mined_losses(to_key, similarity, nearest, self.temperature)
        return losses, _mean_accuracy(streams, nearest)


def _mined_losses(
    to_key: Tensor, similarity: list[Tensor], nearest: list[Tensor], temperature: float
) -> list[Tensor]:
    """For each v the mean over u != v and clips of L(v | u), from q_v.k_v (S, B) and similarities.

    The context of u and v serves L(v | u) and L(u | v), so each pair's is computed once.
    """
    to_key = to_key / temperature
    own = [s / temperature for s in similarity]  # S of (B, Q)
    own_sums = [torch.logaddexp(k, s.logsumexp(1)) for k, s in zip(to_key, own, strict=True)]
    losses: list[list[Tensor]] = [[] for _ in own]
    for first, second in itertools.combinations(range(len(own)), 2):
        context = similarity[first] * own[second]  # (B, Q)
        context_sum = context.logsumexp(1)
        for u, v in ((first, second), (second, first)):
            slots = nearest[u]
            mined = own[v].gather(1, slots).sum(1) + context.gather(1, slots).sum(1)
            total = torch.logaddexp(own_sums[v], context_sum)
            losses[v].append(total - (to_key[v] + mined) / (1 + 2 * slots.shape[1]))
    return [torch.stack(of_v).mean() for of_v in losses]


def _mean_accuracy(streams: list[tuple[Tensor, ...]], nearest: list[Tensor]) -> Tensor:
    parts = [
        contrast_accuracy(*stream, slots) for stream, slots in zip(streams, nearest, strict=True)
    ]
    return torch.stack(parts).mean()
