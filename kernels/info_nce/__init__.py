"""InfoNCE against a bank of negatives: the public function."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from msclr.kernels._arguments import as_positive
from msclr.kernels.info_nce import operator
from msclr.kernels.info_nce.check import check_arguments
from msclr.kernels.info_nce.operator import Arguments

__all__ = ["InfoNCEOutput", "info_nce"]


class InfoNCEOutput(NamedTuple):
    """What :func:`info_nce` returns; see there."""

    loss: Tensor  # (P, B)
    distribution: Tensor | None  # (P, B)
    log_sum_exp: Tensor  # (P, B)
    top_k: Tensor | None  # (P, B, top_k) int64


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

    Code: ``kernels/info_nce/operator.py``; C++ ``csrc/info_nce/cpu.cpp``, Triton
    ``kernels/info_nce/triton_launch.py``.
    """
    mined = isinstance(positives, str)
    if mined and positives != "mined":
        raise ValueError(f'positives must be None, (B, R) bank rows or "mined", got {positives!r}')
    given = None if mined else positives
    scalar = as_positive("temperature", temperature)
    arguments = Arguments(queries, keys, bank, scalar, teacher, top_k, given, mined)
    check_arguments(arguments)
    loss, distribution, log_sum_exp, nearest, *_ = operator.info_nce(backend, arguments)
    return InfoNCEOutput(
        loss,
        None if teacher is None else distribution,
        log_sum_exp,
        nearest if top_k else None,
    )
