"""A whole training step of MS-AimCLR: ours against the papers' padded form in plain PyTorch.

A step is the momentum update of the key encoder, three views of 32 clips of two bodies and 50
frames through ST-GCN of width 16, the loss, its gradients, SGD and the writing of the queue; the
key's layout is the query's, or another. The contestants, all of the same weights and float32:

    ours                 msclr, compiled operators and all
    padded               plain PyTorch; every clip is padded to the largest layout, 42 joints
    exact                plain PyTorch; every layout keeps its joints
    …_channels_last      the same with activations and weights in that order
    …_compiled           the same through torch.compile, forward and backward, on request

Before anything is timed, loss and gradients without dropout are held against ours: those of the
padded form against padding="paper". Besides seconds, a row has of each contestant

    peak_extra_bytes     growth of memory at its peak over two steps, in a process of its own, after
                         a first step, in which torch.compile compiles
    operator_calls       what a step asks of PyTorch's dispatcher but views and allocations, and
    bytes_moved          what these read and write: benchmarks/counting.py says how it is counted.
                         None where torch.compile runs the step past the dispatcher
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import machine
from benchmarks.counting import counted
from benchmarks.options import positive
from benchmarks.origin import ROOT
from benchmarks.plain_aimclr import Encoder, PlainAimCLR
from benchmarks.plain_stgcn import widths
from benchmarks.runner import Case, Part, Setup, alike
from msclr import layouts
from msclr.methods import AimCLR, Batch, View
from msclr.nn import STGCN

LAYOUTS = ("kinectv2_25", "smplx_42")
PAIRS = [("kinectv2_25", "kinectv2_25"), ("kinectv2_25", "smplx_42")]  # of query and key
CHANNELS, DIM, EMBEDDING = 16, 256, 128
DROPOUT = 0.5
ORDERS = {"": torch.contiguous_format, "_channels_last": torch.channels_last}
PLAIN = tuple(f"{form}{order}" for form in ("padded", "exact") for order in ORDERS)

# Prints the peak of one contestant, whose name, sizes and threads are the argument.
ALONE = """
import json, sys, torch
from benchmarks import step
name, sizes, threads = json.loads(sys.argv[1])
torch.set_num_threads(threads)
print(step.peak(name, sizes))
"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clips", type=positive, default=32, help="of a batch (default: 32)")
    parser.add_argument("--frames", type=positive, default=50, help="of a clip (default: 50)")


def cases(args: argparse.Namespace) -> list[Case]:
    names = ("ours", *PLAIN, *(f"{name}_compiled" for name in PLAIN if args.compile))
    layout = max(LAYOUTS, key=lambda name: layouts.get(name).num_joints)
    # Two views through ten blocks, each of which keeps two activations at the least.
    room = 4 * 40 * args.clips * 2 * args.frames * layouts.get(layout).num_joints * CHANNELS
    rest = {"B": args.clips, "M": 2, "T": args.frames, "width": CHANNELS, "D": DIM}
    rest |= {"Q": 128 * args.clips, "dtype": "float32"}
    return [
        Case({"op": "step", "query": query, "key": key, **rest}, names, room)
        for query, key in PAIRS
    ]


def parts(case: Case, args: argparse.Namespace) -> Iterator[Part]:
    """A step of each contestant on the same views."""
    sizes = case.sizes
    torch._dynamo.reset()  # or the second pair of layouts would be compiled for any
    clips = batch(sizes)
    same(sizes, clips)
    runs = {name: step_of(name, sizes, clips) for name in case.contestants}
    alone = {name: _in_a_process(name, sizes) for name in case.contestants}
    counts = {name: counted(run) for name, run in runs.items() if not _is_compiled(name)}
    more = {
        key: {name: counts.get(name, {}).get(key) for name in case.contestants}
        for key in ("operator_calls", "bytes_moved")
    }
    yield Part(runs, memory=False, more={"peak_extra_bytes": alone, **more})


def batch(sizes: dict[str, Any]) -> list[Tensor]:
    """A query, extreme and key view of each clip: (B, 3, T, V, M)."""
    b, t, m = (sizes[key] for key in "BTM")
    names = (sizes["query"], sizes["query"], sizes["key"])
    return [torch.randn(b, 3, t, layouts.get(name).num_joints, m) for name in names]


def step_of(name: str, sizes: dict[str, Any], clips: list[Tensor]) -> Callable[[], None]:
    """A contestant's whole step."""
    model = contestant(name, sizes)
    loss_of = torch.compile(model) if _is_compiled(name) else model
    inputs = inputs_of(model, sizes, clips)
    optimizer = torch.optim.SGD(
        model.query.parameters(), 0.01, momentum=0.9, weight_decay=1e-4, fused=True
    )

    def step() -> None:
        if isinstance(model, PlainAimCLR):  # ours does so by itself
            model.update_key()
        loss, *_, keys = loss_of(*inputs)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.enqueue(keys)

    return step


def contestant(name: str, sizes: dict[str, Any], dropout: float = DROPOUT, padding: str = "none"):
    """The model in training mode; all have the same weights. ``padding`` is an option of ours."""
    torch.manual_seed(0)
    encoder = STGCN(LAYOUTS, sizes["width"], sizes["D"], dropout=dropout, padding=padding)
    ours = AimCLR(encoder, embedding_dim=EMBEDDING, queue_size=sizes["Q"])
    if name == "ours":
        return ours.train()
    order = ORDERS["_channels_last" if "channels_last" in name else ""]
    graphs = {layout: layouts.get(layout).adjacency() for layout in LAYOUTS}
    widths_of = (*widths(sizes["width"])[:-1], sizes["D"])
    plain = Encoder(graphs, widths_of, dropout, name.startswith("padded"), order)
    model = PlainAimCLR(plain, sizes["D"], EMBEDDING, ours.queue.keys)
    with torch.no_grad():
        for theirs, own in zip(model.parameters(), ours.parameters(), strict=True):
            theirs.copy_(own)
    return model.to(memory_format=order).train()


def inputs_of(model: nn.Module, sizes: dict[str, Any], clips: list[Tensor]) -> list[Any]:
    """What the model is called with."""
    query, key = sizes["query"], sizes["key"]
    if isinstance(model, PlainAimCLR):
        return [*clips, query, key]
    rows, present = torch.arange(sizes["B"]), torch.ones(sizes["B"], sizes["M"], dtype=torch.bool)
    of_query, of_extreme, of_key = (View(x, rows, present) for x in clips)
    return [Batch({query: of_query}, {key: of_key}, {query: of_extreme})]


def same(sizes: dict[str, Any], clips: list[Tensor]) -> None:
    """Without dropout, every plain form gives the loss and the gradients of ours."""
    for form, padding in (("padded", "paper"), ("exact", "none")):
        found = {"ours": gradients("ours", sizes, clips, padding)}
        for order in ORDERS:
            found[f"{form}{order}"] = gradients(f"{form}{order}", sizes, clips)
        alike(found, 1e-2)


def gradients(
    name: str, sizes: dict[str, Any], clips: list[Tensor], padding: str = "none"
) -> list[Tensor]:
    """The loss, and the gradients of all that learns, one after the other.

    Of weights away from those of a new model, whose batch norms put the padding just at a ReLU's
    kink, where the last bit decides.
    """
    model = contestant(name, sizes, dropout=0.0, padding=padding).to(clips[0].dtype)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    if isinstance(model, PlainAimCLR):
        model.update_key()
    loss = model(*inputs_of(model, sizes, clips))[0]
    loss.backward()
    found = [p.grad.flatten() for p in model.query.parameters() if p.grad is not None]
    return [loss.detach(), torch.cat(found)]


def peak(name: str, sizes: dict[str, Any]) -> int:
    """How far this process grows over two steps of a contestant; call it in one that is new."""
    step = step_of(name, sizes, batch(sizes))
    step()
    return machine.peak_extra_bytes(lambda: (step(), step()), torch.device("cpu"))


def _in_a_process(name: str, sizes: dict[str, Any]) -> int:
    given = json.dumps([name, sizes, torch.get_num_threads()])
    command = [sys.executable, "-c", ALONE, given]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout)


def _is_compiled(name: str) -> bool:
    return name.endswith("_compiled")


SETUP = Setup(
    "6 minutes",
    file="{device}-float32-{setting}{compiled}",
    rounds=7,
    devices=("cpu",),
    compiles=True,
)
