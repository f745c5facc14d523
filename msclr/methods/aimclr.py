"""MS-AimCLR: extreme views, attention-guided drop and neighbour mining over pairs of layouts."""

from __future__ import annotations

import torch
from torch import nn

from msclr import kernels
from msclr.methods.embedder import Batch
from msclr.methods.pairs import pair_up
from msclr.methods.skeletonclr import SkeletonCLR, StepOutput, contrast_accuracy


class AimCLR(SkeletonCLR):
    """Loss of a batch: ``CE([q.k, q.queue] / T, 0) + (D(e) + D(d)) / 2``.

    e embeds the extreme view, d the same after the attention-guided drop;
    ``D(x) = -sum_j p_j log softmax([x.k, x.queue] / T)_j`` with p the softmax of the logits of q,
    a constant. With ``mining`` the cross entropy takes several positives: k and the queue's
    nearest neighbours of q, e and d. Use as :class:`SkeletonCLR`.

    Args:
        encoder, settings: as :class:`SkeletonCLR` has them.
        mining_epoch: the epoch, from 0, whose steps are the first to mine; None: never.
        mining_top_k: how many neighbours of each of q, e and d.

    Source: Guo et al., "AimCLR" (AAAI 2022), eq. 5 to 10; MS-CLR (arXiv:2508.14889).
    """

    needs_extreme_view = True
    mining = False

    def __init__(
        self,
        encoder: nn.Module,
        *,
        mining_epoch: int | None = 150,
        mining_top_k: int = 1,
        **settings,
    ):
        super().__init__(encoder, **settings)
        self.mining_epoch, self.mining_top_k = mining_epoch, mining_top_k

    @property
    def phase(self) -> bool:
        return self.mining

    def start_step(self, epoch: int) -> None:
        self.mining = self.mining_epoch is not None and epoch >= self.mining_epoch

    def forward(self, batch: Batch) -> StepOutput:
        keys = self._keys(batch)
        query = self.query.features(batch.query)  # (R, D)
        extreme, dropped = self.query.features(batch.extreme, drop=True)
        queries = self.query.project(torch.stack([query, extreme, dropped]))  # (3, R, E)
        queries, positives = pair_up(queries, keys, batch.layouts_per_clip)
        out = kernels.info_nce(
            queries,
            positives,
            self.queue.keys,
            self.temperature,
            teacher=0,
            top_k=self.mining_top_k if self.mining else 1,
            positives="mined" if self.mining else None,
        )
        matching = 0.5 * (out.distribution[1] + out.distribution[2])
        accuracy = contrast_accuracy(queries[0], positives, self.queue.keys, out.top_k[0])
        return StepOutput((out.loss[0] + matching).mean(), accuracy, keys)
