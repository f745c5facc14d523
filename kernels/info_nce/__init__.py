"""InfoNCE against a queue, and multi-view InfoNCE: the public functions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor
from torch import distributed as dist

from msclr.kernels._backend import choose
from msclr.kernels.info_nce import multi_view, op, reference
from msclr.kernels.info_nce.check import check_info_nce, check_multi_view
from msclr.kernels.info_nce.reference import InfoNCEOutput

__all__ = ["InfoNCEOutput", "info_nce", "multi_view_info_nce"]

_INFO_NCE = {"reference": reference.info_nce} | {
    backend: partial(op.info_nce, name) for backend, name in op.BACKENDS.items()
}


def info_nce(
    queries: Tensor,
    keys: Tensor,
    bank: Tensor | None,
    temperature: float | Tensor = 0.07,
    *,
    teacher: int | None = None,
    top_k: int = 0,
    positives: Tensor | str | None = None,
    backend: str | None = None,
) -> InfoNCEOutput:
    """Contrast P views of a batch with their keys and a bank of negatives (MoCo's queue).

    With ``s = [q.k, q.bank] / temperature`` and a set of positive columns that always holds the
    key: ``loss = -mean over positives of log softmax(s)``. Against view ``teacher``, whose
    softmax p is a constant: ``distribution = -sum_j p_j log softmax(s)_j``.

    Args:
        queries: (P, B, D), normalised by the caller; so are keys and bank.
        keys: (B, D), the positive of each row in every view.
        bank: (Q, D), or None for the key alone (the loss is then 0).
        temperature: positive, a float or a scalar tensor (which may want a gradient).
        teacher: the view that the others' distributions are matched to, or None.
        top_k: how many of the nearest bank rows to return (ties: the lower row).
        positives: None (the key alone), (B, R) int64 bank rows that join the key (-1: none,
            repeats count once), or "mined": the union over views of their own ``top_k``.
        backend: "cpu", "triton" or "reference" (see :func:`msclr.kernels.backends`), or None for
            the fastest that can run here. "cpu" and "triton" keep no similarities: their memory
            does not grow with Q. "triton" takes a D of up to 1,024 and a top_k of up to 16.

    Returns:
        :class:`InfoNCEOutput`: loss (P, B), distribution (P, B) or None (0 in the teacher's own
        row), log_sum_exp (P, B), top_k (P, B, top_k) int64 or None. float32 for half-precision
        inputs, else of their dtype. Gradients flow to queries, keys, bank and temperature.

    Raises:
        ValueError: an argument of the wrong shape, dtype, device or range; it is named.

    Sources: He et al., "Momentum Contrast" (CVPR 2020), eq. 1; Guo et al., "AimCLR" (AAAI 2022),
    eq. 5 to 9.
    """
    check_info_nce(queries, keys, bank, temperature, teacher, top_k, positives)
    run = choose("info_nce", _INFO_NCE, backend, queries.device)
    return run(queries, keys, bank, temperature, teacher, top_k, positives)


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
    """
    multi_view.check_ranks(views, group)
    check_multi_view(views, temperature, bank, pairs, negatives)
    return multi_view.multi_view_info_nce(
        views, temperature, bank, pairs, negatives, group, backend
    )
