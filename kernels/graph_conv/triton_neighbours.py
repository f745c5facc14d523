"""The adjacency in Triton: lists of neighbours, kept where a support is given, and its gradient.

Per graph (of a layout and partition) and joint w, the j-th neighbour is source[j, w], -1 past the
last; `longest` is the length of the longest list. A support is a constant of a run, so its lists
are made once: entries of the adjacency are read where they are needed, and those of 0 count for
nothing. Without a support lists are those of the adjacency, made for each call.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from msclr.kernels._triton import ELEMENTS, block_size, cdiv
from msclr.kernels._triton_rows import COLUMNS, GRAPH, JOINTS

_MOST_KEPT = 256
_BLOCK_E = 256  # entries that a program adds up


class Neighbours(NamedTuple):
    source: Tensor  # int32, of the adjacency's size: V places a list
    longest: Tensor  # int32, one a graph


class Lists:
    """What lists are made of, and those of either direction."""

    def __init__(
        self,
        adjacency: Tensor,  # (L, K, V, V), or those of segments one after the other, contiguous
        support: Tensor | None,  # the same in bool
        counts: Tensor | None,  # (L,) real joints of each layout
        graphs: int,
        partitions: int,
        joints: int,  # of the largest layout
        table: Tensor | None = None,  # of segments, see _triton_rows.py
    ):
        self.adjacency, self.support, self.counts, self.table = adjacency, support, counts, table
        self.sizes = graphs, partitions, joints

    def neighbours(self, transposed: bool) -> Neighbours:
        """Of the joints that a joint comes from; transposed, of those it goes to."""
        if self.support is None:
            return self._make(transposed)
        return _kept.get(
            (self.support, self.counts, self.table),
            (*self.sizes, transposed),
            lambda: self._make(transposed),
        )

    def gradient(self, links: Tensor, rows: int) -> Tensor:
        """The adjacency's gradient from its parts (parts, graphs, rows, rows), 0 outside of the
        support: of whole frames, of which each one's links with itself are added up."""
        graphs, partitions, joints = self.sizes
        made = torch.empty_like(self.adjacency)
        if made.numel():
            adjacency_gradient[(graphs, cdiv(joints * joints, _BLOCK_E))](
                links, self.support, self.counts, self.table, made, len(links), partitions, joints,
                SUM=ELEMENTS[links.dtype], BLOCK_R=rows, BLOCK_P=8, BLOCK_E=_BLOCK_E, num_warps=4,
                maxnreg=255,
            )  # fmt: skip
        return made

    def _make(self, transposed: bool) -> Neighbours:
        graphs, partitions, joints = self.sizes
        given = self.adjacency if self.support is None else self.support
        lists = Neighbours(
            torch.empty(given.numel(), dtype=torch.int32, device=given.device),
            torch.empty(graphs, dtype=torch.int32, device=given.device),
        )
        list_neighbours[(graphs,)](
            given, self.counts, self.table, *lists, partitions, joints,
            TRANSPOSED=transposed, BLOCK_V=block_size(joints, 128), BLOCK_W=16, num_warps=4,
        )  # fmt: skip
        return lists


class _Kept:
    """What was made of tensors that stay as they are, the latest of it.

    The tensors are held, so their memory is not given to others, and where it lies and how often it
    was written name what is in it.
    """

    def __init__(self):
        self.entries: OrderedDict[Hashable, tuple] = OrderedDict()
        self.captured: list[Any] = []  # by CUDA graphs, which go on reading it

    def get(self, tensors: tuple[Tensor | None, ...], sizes: tuple, make: Any) -> Any:
        if any(t is not None and t.is_inference() for t in tensors):
            return make()  # how often it was written is not known
        key = *sizes, *(t if t is None else _name(t) for t in tensors)
        device = tensors[0].device
        capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        entry = self.entries.get(key)
        if entry is None:
            made = make()
            if not capturing:  # else it is made again with each replay
                self.entries[key] = made, tensors, _now(device)
                if len(self.entries) > _MOST_KEPT:
                    self.entries.popitem(last=False)
            return made
        made, _, ready = entry
        if capturing:  # all that came before a capture is done
            self.captured.append(entry)
        elif ready is not None and ready[0] != _stream(device):
            ready[1].wait()
        return made


_kept = _Kept()


def _name(tensor: Tensor) -> tuple:
    return tensor.data_ptr(), tensor._version, tensor.shape, tensor.dtype, tensor.device


def _stream(device: torch.device) -> int:
    return torch._C._cuda_getCurrentRawStream(device.index)


def _now(device: torch.device) -> tuple[int, torch.cuda.Event] | None:
    """A stream, and when what was put into it until now is done."""
    if device.type != "cuda":
        return None
    return _stream(device), torch.cuda.current_stream(device).record_event()


@triton.jit
def list_neighbours(
    allowed,  # (L, K, V, V), or of segments: bool, or the adjacency
    counts,  # (L,) or None
    table,  # of segments or None
    source,  # made here, as is the next
    longest,
    partitions,
    joints,
    TRANSPOSED: tl.constexpr,  # lists of the joints w that a joint v goes to
    BLOCK_V: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """One program lists the neighbours of one graph."""
    graph = tl.program_id(0)
    base = graph * joints * joints
    if table is not None:
        entry = table + graph // partitions * COLUMNS
        joints = tl.load(entry + JOINTS)
        base = tl.load(entry + GRAPH) * partitions + graph % partitions * joints * joints
    count = joints
    if counts is not None:
        count = tl.minimum(tl.load(counts + graph // partitions).to(tl.int32), joints)
    v = tl.arange(0, BLOCK_V)[:, None]
    most = 0
    for start in range(0, joints, BLOCK_W):
        w = start + tl.arange(0, BLOCK_W)[None, :]
        linked = (v < count) & (w < count)  # what lies beyond is not even read
        at = base + (w * joints + v if TRANSPOSED else v * joints + w)
        linked = linked & (tl.load(allowed + at, mask=linked, other=0) != 0)  # true of NaN
        place = tl.cumsum(linked.to(tl.int32), 0) - 1
        degree = tl.sum(linked.to(tl.int32), 0)[None, :]
        unused = (v >= degree) & (v < joints) & (w < joints)
        tl.store(source + base + place * joints + w, v + tl.zeros_like(w), mask=linked)
        tl.store(source + base + v * joints + w, tl.full(unused.shape, -1, tl.int32), mask=unused)
        most = tl.maximum(most, tl.max(degree))
    tl.store(longest + graph, most)


@triton.jit
def entries_of(
    adjacency, source, graph, j, own, joints, real, TRANSPOSED: tl.constexpr, SUM: tl.constexpr
):
    """The j-th neighbour of each joint and its entry, and whether there is one that counts."""
    v = tl.load(source + (graph + j * joints + own), mask=real, other=-1)
    linked = v >= 0
    at = own * joints + v if TRANSPOSED else v * joints + own
    a = tl.load(adjacency + (graph + at), mask=linked, other=0).to(SUM)
    return v, a, linked & (a != 0)


@triton.jit(do_not_specialize=["parts"])
def adjacency_gradient(
    links,  # (parts, L K, BLOCK_R, BLOCK_R)
    support,  # as the adjacency, or None
    counts,  # (L,) or None
    table,  # of segments or None
    made,  # as the adjacency
    parts,
    partitions,
    joints,
    SUM: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """One program adds up BLOCK_E entries of one graph."""
    graph = tl.program_id(0)
    base = graph * joints * joints
    if table is not None:
        entry = table + graph // partitions * COLUMNS
        joints = tl.load(entry + JOINTS)
        base = tl.load(entry + GRAPH) * partitions + graph % partitions * joints * joints
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    exists = e < joints * joints
    v, w = e // joints, e % joints
    wanted = exists
    if counts is not None:
        count = tl.load(counts + graph // partitions).to(tl.int32)
        wanted = wanted & (v < count) & (w < count)
    if support is not None:
        wanted = wanted & (tl.load(support + base + e, mask=exists, other=0) != 0)
    together = BLOCK_R // joints  # whole frames
    total = tl.zeros((BLOCK_E,), SUM)
    for start in range(0, parts * together, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        of_part = (p // together).to(tl.int64) * tl.num_programs(0) + graph
        first = of_part * BLOCK_R * BLOCK_R + p % together * joints * (BLOCK_R + 1)
        at = links + first[:, None] + (v * BLOCK_R + w)[None, :]
        there = (p < parts * together)[:, None] & wanted[None, :]
        total += tl.sum(tl.load(at, mask=there, other=0), 0)
    tl.store(made + base + e, total.to(made.dtype.element_ty), mask=exists)
