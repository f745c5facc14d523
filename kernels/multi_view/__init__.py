"""Multi-view InfoNCE, every view both query and key: the public function."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from torch import Tensor
from torch import distributed as dist

from msclr.kernels._arguments import as_positive
from msclr.kernels.multi_view import operator
from msclr.kernels.multi_view.check import check_arguments
from msclr.kernels.multi_view.operator import Arguments
from msclr.kernels.multi_view.ranks import check_ranks, with_all_clips

__all__ = ["multi_view_info_nce"]


def multi_view_info_nce(
    views: Tensor,
    temperature: float | Tensor = 0.07,
    *,
    bank: Tensor | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
    negatives: str = "view",
    group: dist.ProcessGroup | None = None,
    backend: str | None = None,
) -> Tensor:
    """InfoNCE over several views of each clip of a batch, every view both query and key.

    The mean over ordered pairs (i, j), i != j, and clips b of
    ``-log( exp(z_i[b].z_j[b]/T) / sum over candidates c of exp(z_i[b].c/T) )``, whose candidates
    are views[j] of all clips (``negatives="view"``), or views[j][b] and every view of the other
    clips (``"batch"``), and the bank.

    Args:
        views: (P, B, D), normalised by the caller, P >= 2.
        temperature: positive, a float or a scalar tensor.
        bank: (Q, D) further negatives, or None.
        pairs: the ordered pairs (anchor view, key view) to take; None takes all of them.
        negatives: "view" or "batch".
        group: a torch.distributed process group whose ranks each hold an equal share of the
            clips; candidates then come from all ranks, and the loss and its gradients, once
            averaged over the ranks, are those of one process with the whole batch. The bank and
            the other arguments are each rank's own.
        backend: "cpu", "triton" or "reference" (see :func:`msclr.kernels.backends`), or None for
            the fastest that can run here. "cpu" and "triton" keep no similarities: their memory is
            O(P B D), on W ranks O(W P B D), and their results depend neither on the number of
            threads nor on timing. "triton" takes a D of up to 512.

    Returns:
        The loss, a scalar; float32 for half-precision inputs. Gradients flow to views, bank and
        temperature.

    Raises:
        ValueError: an argument of the wrong shape, dtype or range; it is named. Views of unlike
            shapes are refused on every rank.

    Sources: Chen et al., "SimCLR" (ICML 2020), eq. 1; Tian et al., "Contrastive Multiview Coding"
    (ECCV 2020), full graph.

    Code: ``kernels/multi_view/operator.py``; C++ ``csrc/multi_view/cpu.cpp``, Triton
    ``kernels/multi_view/triton_launch.py``.
    """
    check_ranks(views, group)
    temperature = as_positive("temperature", temperature)
    check_arguments(views, temperature, bank, pairs, negatives)
    if pairs is None:
        pairs = permutations(range(len(views)), 2)
    flat = [view for pair in pairs for view in pair]
    candidates, first = None, 0
    if group is not None:
        views, candidates, first = with_all_clips(views, group)
    all_views = negatives == "batch"
    arguments = Arguments(views, temperature, flat, candidates, first, bank, all_views)
    loss, *_ = operator.multi_view_info_nce(backend, arguments)
    return loss
