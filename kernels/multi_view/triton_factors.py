"""The factors of multi-view InfoNCE's anchors in Triton, for the programs of triton_backward.py."""

from __future__ import annotations

import triton
import triton.language as tl

from msclr.kernels._triton import LOG2_E
from msclr.kernels.multi_view.triton_forward import _is_near

# Weights p <= 1 times 2^14, so that float16 keeps those of 2^-28 in full; two fit its range.
SCALE_LOG2 = tl.constexpr(14.0)
SCALE = tl.constexpr(2.0**14)


@triton.jit(do_not_specialize=["batch", "views"])
def anchor_factors(
    weights,  # (P, P)
    shifts,  # (P, P, B)
    log_sums,  # (P, P, B)
    temperature,  # ()
    largest,  # (): norm of a row
    factors,  # (2, P, P + 1, width): made here; scaled, and if far, log2 of them and their shifts
    batch,
    views,
    width,  # B and then whole tiles: past B are those of anchors that pull at nothing
    ALL_VIEWS: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """One program takes some clips' anchors of one view. The bank, and with ALL_VIEWS every view,
    holds negatives for all of the anchor's keys: their factors add up."""
    b = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    view = tl.program_id(1).to(tl.int64)
    for slot in range(0 if ALL_VIEWS else views, views + 1):
        _store_factors(
            weights, shifts, log_sums, temperature, largest, factors, b, batch, view, views, slot,
            width, 0, views, SUM, BLOCK_B,
        )  # fmt: skip
    if not ALL_VIEWS:
        for slot in range(views):
            _store_factors(
                weights, shifts, log_sums, temperature, largest, factors, b, batch, view, views,
                slot, width, slot, slot + 1, SUM, BLOCK_B,
            )  # fmt: skip


@triton.jit
def _store_factors(
    weights, shifts, log_sums, temperature, largest, factors, b, batch, view, views, slot, width,
    first, last, SUM: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    """Of a slot whose rows are negatives for keys first..last. They all lie below the smallest of
    the keys' shifts, which is the slot's."""
    factor = LOG2_E / tl.load(temperature)
    exist = b < batch
    shift = tl.full((BLOCK_B,), float("inf"), SUM)
    for key in range(first, last):
        pair = view * views + key
        of_key = tl.load(shifts + pair * batch + b, mask=exist, other=float("inf"))
        shift = tl.where(tl.load(weights + pair) > 0, tl.minimum(shift, of_key), shift)
    shift = tl.where(shift == float("inf"), 0, shift)
    total = tl.zeros((BLOCK_B,), SUM)
    for key in range(first, last):
        pair = view * views + key
        weight = tl.load(weights + pair)
        of_key = tl.load(shifts + pair * batch + b, mask=exist, other=float("inf"))
        log_sum = tl.load(log_sums + pair * batch + b, mask=exist, other=0)
        found = weight * tl.exp2((shift - of_key) * factor - log_sum * LOG2_E)
        total += tl.where(weight > 0, found, 0)
    found = tl.log2(total) + SCALE_LOG2
    if _is_near(largest, factor):
        found = tl.exp2(found - shift * factor)
    at = (view * (views + 1) + slot) * width + b
    tl.store(factors + at, found)
    tl.store(factors + views * (views + 1) * width + at, shift)
