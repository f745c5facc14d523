"""What all benchmarks share: options, rounds in which all contestants take turns, spread, memory.

A benchmark is a module with its cases and, for each case, its contestants:

    SETUP               a Setup
    options(parser)     adds what it can be asked for
    cases(args)         the list of its Cases
    parts(case, args)   yields Parts: runs of the contestants; what they need lives until the next

A result is a JSON object: what it was measured on, and a row per case. A row begins with the case's
sizes; then come, of the row itself or of each named part of it,

    seconds             contestant -> median, p20 and p80 of the rounds
    best_other, ratio   the fastest of the others, and its median over ours; where several
                        contestants are ours, over that of best_ours, the fastest of these
    gflop_s, gb_s       what ours does a second, at the least; gemm_share over a large product's
    peak_extra_bytes    contestant -> growth of memory at its peak

and what the benchmark adds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from benchmarks import machine, output, summary
from benchmarks.options import called, parsed
from benchmarks.origin import describe, setting
from benchmarks.output import Case
from msclr.errors import InputError


@dataclass(frozen=True)
class Part:
    """One thing that all contestants of a case do, each by a function without arguments."""

    runs: dict[str, Callable[[], Any]]
    name: str = ""  # under which its figures are in the row; "": in the row itself
    operations: float = 0  # of ours, at the least
    bytes: float = 0  # that ours reads and writes, at the least
    amounts: Mapping[str, float] | None = None  # of work that a run does; seconds are those of one
    key: str = "seconds"
    ours: tuple[str, ...] = ("ours",)  # the contestants whose fastest the others are held against
    memory: bool = True  # whether this process's memory is that of the run
    more: dict[str, Any] = field(default_factory=dict)  # other figures


@dataclass(frozen=True)
class Setup:
    """What a benchmark's module says of it, as SETUP."""

    takes: str  # the full set, on two cores
    file: str = "{device}-{dtype}-{setting}"  # a published result's name, after the benchmark's
    rounds: int = 15  # 0: it is not one of seconds
    devices: tuple[str, ...] = ("cpu", "cuda")
    dtypes: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()  # of ours
    compiles: bool = False  # whether PyTorch's forms can take part through torch.compile as well
    products: bool = False  # whether ours is held against the rate of a large matrix product


def run(benchmark: ModuleType, argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure all cases, a line each, and write the result where --out says; returns it.

    Raises:
        InputError: bad options, before anything is measured.
    """
    args, full = parsed(benchmark, argv)
    cases, device = benchmark.cases(args), args.device
    name = file_name(benchmark, args)
    path = output.target(args.out, name, cases, args.rounds, benchmark.cases(full), full.rounds)
    _must_fit(cases, device)
    began, backend = time.monotonic(), {"backend": args.backend or "default"}
    result = {"benchmark": name.split("-")[0], **backend, **describe(device), "rounds": args.rounds}
    if benchmark.SETUP.products:
        result["ceilings"] = machine.ceilings(device, getattr(torch, args.dtype))
    rows = []
    for case in cases:
        torch.manual_seed(0)
        rows.append({**case.sizes, **_measured(benchmark, case, args, result.get("ceilings", {}))})
        if not args.json:
            print(summary.line(rows[-1]), flush=True)
    result |= {"took_s": time.monotonic() - began, "rows": rows}
    output.save(result, path)
    if args.json:
        print(json.dumps(result))
    print(f"written to {path}", file=sys.stderr)
    return result


def file_name(benchmark: ModuleType, args: argparse.Namespace) -> str:
    """Of a published result, without its ending; the tables look for such names."""
    fields = {**vars(args), "device": args.device.type, "compiled": "-compiled" * args.compile}
    rest = benchmark.SETUP.file.format(**fields, setting=setting(args.device, args.backend))
    return "-".join(filter(None, [called(benchmark).replace(" ", "_"), rest]))


def _must_fit(cases: list[Case], device: torch.device) -> None:
    largest = max(cases, key=lambda case: case.bytes)
    if largest.bytes > (free := machine.free_bytes(device)):
        raise InputError(
            f"{output.in_words(largest.sizes)}: its tensors take {1e-9 * largest.bytes:.0f} GB, "
            f"and {1e-9 * free:.0f} GB are free on {device}; choose smaller sizes"
        )


def _measured(
    benchmark: ModuleType, case: Case, args: argparse.Namespace, ceilings: dict[str, float]
) -> dict[str, Any]:
    """The figures of a case."""
    row: dict[str, Any] = {}
    with closing(benchmark.parts(case, args)) as parts:
        for part in parts:
            if set(part.runs) != set(case.contestants):
                raise RuntimeError(f"{set(part.runs) ^ set(case.contestants)} in one of both alone")
            found = _figures(part, args.device, args.rounds, ceilings) if part.runs else part.more
            row.update({part.name: found} if part.name else found)
    return row


def _figures(
    part: Part, device: torch.device, rounds: int, ceilings: dict[str, float]
) -> dict[str, Any]:
    times = machine.side_by_side(part.runs, device, rounds)
    if part.amounts is not None:
        times = {n: {k: v / part.amounts[n] for k, v in t.items()} for n, t in times.items()}
    seconds = {name: of["median"] for name, of in times.items()}
    found: dict[str, Any] = {part.key: times}
    if part.ours[0] in seconds:
        ours = min(part.ours, key=seconds.__getitem__)
        others = [n for n in seconds if n not in part.ours and not n.startswith("ours")]
        best = min(others, key=seconds.__getitem__)
        found |= {"best_other": best, "ratio": seconds[best] / seconds[ours]}
        found |= {"best_ours": ours} if len(part.ours) > 1 else {}
    if part.operations:
        found["gflop_s"] = 1e-9 * part.operations / seconds["ours"]
        found["gemm_share"] = found["gflop_s"] / ceilings["gemm_gflop_s"]
    if part.bytes:
        found["gb_s"] = 1e-9 * part.bytes / seconds["ours"]
    if part.memory:
        found["peak_extra_bytes"] = {
            name: machine.peak_extra_bytes(one, device) for name, one in part.runs.items()
        }
    return {**found, **part.more}


def alike(found: dict[str, Sequence[Tensor]], tolerance: float) -> None:
    """No figure of a contestant that computes something else.

    Args:
        found: contestant -> what it computes, tensors of the same shapes for all.
        tolerance: the largest error by norm, over the norm of the first contestant's tensor.
    """
    first, *others = found
    for name in others:
        for ours, theirs in zip(found[first], found[name], strict=True):
            error = (theirs.double() - ours.double()).norm() / ours.double().norm()
            if not error <= tolerance:
                raise RuntimeError(f"{name} computes something else than {first}: {error:.1e} off")


def forward(form: Callable, *inputs: Tensor) -> Callable[[], None]:
    """A run of ``form`` without gradients."""

    def step() -> None:
        with torch.no_grad():
            form(*inputs)

    return step


def with_gradients(form: Callable, *inputs: Tensor, grad: Tensor | None = None) -> Callable:
    """A run of ``form`` that returns the gradients of all its inputs."""
    return lambda: torch.autograd.grad(form(*inputs), inputs, grad)
