"""Multi-view contrast: every layout of every clip is query and key, without a key encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from msclr import kernels
from msclr.methods.embedder import Batch, Embedder
from msclr.methods.queue import Queue, of_all_ranks
from msclr.methods.skeletonclr import StepOutput


class MultiView(nn.Module):
    """Loss of a batch: :func:`msclr.kernels.multi_view_info_nce` of the layouts of its clips.

    One encoder embeds each clip under each of its L layouts once, and every embedding serves as
    query and as key: 2 forward passes per clip of 2 layouts, where AimCLR has 3, or 6 with all
    pairs. The negatives are the other clips of the batch, of all ranks, so a large batch helps.
    Use as :class:`~msclr.methods.SkeletonCLR`.

    Args:
        encoder: an :class:`~msclr.nn.STGCN` of two or more layouts.
        embedding_dim: length of the embeddings.
        negatives: "view", the other clips under the key's layout, or "batch", under all layouts.
        queue_size: how many embeddings of past steps are further negatives. They come from an
            encoder that has changed since, with no momentum encoder to slow it.
        queue_dtype: what the queue keeps them in.
        temperature: T.

    Sources: Chen et al., "SimCLR" (ICML 2020), eq. 1; Tian et al., "Contrastive Multiview Coding"
    (ECCV 2020), full graph.
    """

    needs_extreme_view, needs_key_view = False, False
    all_layouts, per_stream = True, False
    phase = None

    def __init__(
        self,
        encoder: nn.Module,
        *,
        embedding_dim: int = 128,
        negatives: str = "view",
        queue_size: int = 0,
        queue_dtype: torch.dtype = torch.float32,
        temperature: float = 0.07,
    ):
        super().__init__()
        self.query = Embedder(encoder, embedding_dim)
        self.queue = Queue(queue_size, embedding_dim, queue_dtype) if queue_size else None
        self.negatives, self.temperature = negatives, temperature
        self.process_group = None

    def synchronise(self, process_group: object) -> None:
        """Train as one process with the batch of all ranks would (gradients: average them)."""
        self.process_group = process_group
        self.query.synchronise(process_group)

    def start_step(self, epoch: int) -> None:
        """Called before each step, with the epoch from 0 that it is in."""

    def forward(self, batch: Batch) -> StepOutput:
        """The loss of a batch with all layouts of each clip.

        Its contrast accuracy is how often, of all clips and the queue, a clip's own key is nearest.
        """
        embedded = self.query(batch.query)  # (B * L, E), row b * L + l
        views = embedded.unflatten(0, (-1, batch.layouts_per_clip)).transpose(0, 1)  # (L, B, E)
        loss = kernels.multi_view_info_nce(
            views.contiguous(),
            self.temperature,
            bank=None if self.queue is None else self.queue.keys,
            negatives=self.negatives,
            group=self.process_group,
        )
        keys = embedded.detach()
        return StepOutput(loss, self._accuracy(keys, batch.layouts_per_clip), keys)

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Put the embeddings of a step into the queue, all ranks' in rank order."""
        if self.queue is not None:
            self.queue.enqueue(of_all_ranks(keys, self.process_group))

    @torch.no_grad()
    def _accuracy(self, embedded: Tensor, layouts: int) -> Tensor:
        own = embedded.unflatten(0, (-1, layouts)).transpose(0, 1)  # (L, B, E)
        everyone = of_all_ranks(embedded, self.process_group).unflatten(0, (-1, layouts))
        rank = 0 if self.process_group is None else self.process_group.rank()
        clips = own.shape[1]
        place = torch.arange(rank * clips, (rank + 1) * clips, device=own.device)[:, None]
        past = [] if self.queue is None else [self.queue.keys.to(own.dtype)]
        found = []
        for key in range(layouts):
            bank = torch.cat([everyone[:, key], *past])  # (W * B + Q, E)
            queries = own[[other for other in range(layouts) if other != key]]  # (L - 1, B, E)
            out = kernels.info_nce(queries, own[key], bank, self.temperature, top_k=1)
            found.append((out.top_k == place).float().mean())
        return torch.stack(found).mean()
