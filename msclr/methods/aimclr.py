"""MS-AimCLR: extreme views, attention-guided drop and neighbour mining over pairs of layouts."""

from __future__ import annotations

import torch

from msclr import kernels
from msclr.methods.embedder import Batch
from msclr.methods.skeletonclr import SkeletonCLR, StepOutput


class AimCLR(SkeletonCLR):
    """Loss of a batch: ``CE([q.k, q.queue] / T, 0) + (D(e) + D(d)) / 2``.

    e embeds the extreme view, d the same after the attention-guided drop;
    ``D(x) = -sum_j p_j log softmax([x.k, x.queue] / T)_j`` with p the softmax of the logits of q,
    a constant. With ``mining`` the cross entropy takes several positives: k and the queue's
    nearest neighbours of q, e and d. Arguments and use as :class:`SkeletonCLR`.

    Source: Guo et al., "AimCLR" (AAAI 2022), eq. 5 to 10; MS-CLR (arXiv:2508.14889).
    """

    needs_extreme_view = True
    mining = False

    def forward(self, batch: Batch) -> StepOutput:
        keys = self._keys(batch)
        query = self.query.features(batch.query)  # (R, D)
        extreme, dropped = self.query.features(batch.extreme, drop=True)
        queries = self.query.project(torch.stack([query, extreme, dropped]))  # (3, R, E)
        queries, positives = self._pair_up(queries, keys, batch.layouts_per_clip)
        out = kernels.info_nce(
            queries,
            positives,
            self.queue.keys,
            self.temperature,
            teacher=0,
            top_k=1,
            positives="mined" if self.mining else None,
        )
        matching = 0.5 * (out.distribution[1] + out.distribution[2])
        accuracy = self._contrast_accuracy(queries[0], positives, out.top_k[0])
        return StepOutput((out.loss[0] + matching).mean(), accuracy, keys)
