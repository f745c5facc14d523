"""An accelerated model keeps the memory format of its tensors."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from benchmarks.plain_stgcn import Block, ConvTemporalGraphical
from msclr.nn.accelerate import accelerate
from tests.nn.lookalikes import Pyskl, graph, unit_gcn

INPUTS = {
    "contiguous": lambda: torch.randn(2, 3, 6, 5),
    "permuted": lambda: torch.randn(2, 6, 5, 3).permute(0, 3, 1, 2),
    "every other frame": lambda: torch.randn(2, 3, 12, 5)[:, :, ::2],
}


class Blocks(nn.Module):
    """No ``contiguous()`` anywhere, but those that the graph convolutions do."""

    def __init__(self):
        super().__init__()
        self.register_buffer("A", graph())
        self.blocks = nn.ModuleList([Block(3, 4, 3), Block(4, 6, 3, stride=2), Block(6, 6, 3)])

    def forward(self, x):
        for block in self.blocks:
            x, _ = block(x, self.A)
        return x


def orders(model, x):
    """Which tensors are contiguous: what each layer gives, and the gradient that comes back."""
    found = {}

    def watch(name):
        def hook(layer, args, y):
            y = y[0] if isinstance(y, tuple) else y
            found[name] = [y.is_contiguous()]
            y.register_hook(lambda grad: found[name].append(grad.is_contiguous()))

        return hook

    inner = [m.conv for m in model.modules() if isinstance(m, (ConvTemporalGraphical, unit_gcn))]
    handles = [
        m.register_forward_hook(watch(n)) for n, m in model.named_modules() if m not in inner
    ]
    model(x).square().sum().backward()
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("order", INPUTS)
@pytest.mark.parametrize("make", [Blocks, lambda: Pyskl(graph())], ids=["st-gcn", "pyskl"])
def test_a_contiguous_model_stays_contiguous(make, order):
    """For channels_last PyTorch runs other code, on some processors with faults of its own."""
    model, x = make(), INPUTS[order]()
    plain = copy.deepcopy(model)
    assert accelerate(model).swapped
    assert orders(model, x) == orders(plain, x)


def test_a_model_moved_to_channels_last_stays_there():
    model = Blocks().to(memory_format=torch.channels_last)
    assert accelerate(model).swapped
    layer = model.blocks[1].gcn
    x = torch.randn(2, 4, 6, 5).contiguous(memory_format=torch.channels_last)
    y, _ = layer(x, model.A)
    assert y.is_contiguous(memory_format=torch.channels_last) and not y.is_contiguous()
