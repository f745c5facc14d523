"""Models to accelerate, and what a run of one gives."""

from __future__ import annotations

import torch

from tests.nn.lookalikes import (
    Encoder,
    LambdaEncoder,
    Pyskl,
    PysklEncoder,
    TwoEncoders,
    graph,
)

EXACT = {"rtol": 1e-10, "atol": 1e-10}
WIDTHS = (4, 4, 6, 6)


def in_parts():
    """An encoder whose blocks do not fit whole."""
    model = Encoder(graph(), widths=WIDTHS)
    for block in model.st_gcn_networks:
        block.tcn[0].eps = 1e-4
    return model


MODELS = {
    "st-gcn": lambda: Encoder(graph(), widths=WIDTHS),
    "st-gcn, in parts": in_parts,
    "st-gcn, functions": lambda: LambdaEncoder(graph(), widths=WIDTHS),
    "st-gcn, no importance": lambda: Encoder(graph(2), importance=False, widths=WIDTHS),
    "aimclr": lambda: TwoEncoders(graph(), widths=WIDTHS),
    **{
        f"pyskl, {adaptive}, residual {residual}": lambda a=adaptive, r=residual: Pyskl(
            graph(), adaptive=a, with_res=r
        )
        for adaptive in (None, "init", "offset", "importance")
        for residual in (True, False)
    },
    **{
        f"pyskl, {adaptive}, blocks": lambda a=adaptive: PysklEncoder(graph(), WIDTHS, adaptive=a)
        for adaptive in (None, "init", "offset", "importance")
    },
}


def made(name):
    """A model in float64 with every weight off its first value, and an input for it."""
    torch.manual_seed(0)
    model = MODELS[name]().double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    shape = (2, 3, 6, 5) if name.startswith("pyskl") else (2, 3, 6, 5, 2)
    if name.endswith("blocks"):
        shape = (2, 2, 6, 5, 3)
    return model, torch.randn(shape, dtype=torch.float64)


def run(model, x):
    """Output, and the gradients of x and of every parameter by name."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    y = model(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    (y * weights).sum().backward()
    return y.detach(), {"x": x.grad} | {n: p.grad.clone() for n, p in model.named_parameters()}
