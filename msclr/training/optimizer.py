"""The optimiser of a recipe, as eager steps and captured ones want it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from msclr.config import Recipe


def optimizer_of(recipe: Recipe, parameters: Iterable[Tensor], captured: bool = False):
    """SGD with momentum, or AdamW; ``captured``, of steps that a CUDA graph may replay.

    PyTorch 2.13's fused SGD leaves momenta uninitialised where the gradients of the first step
    overflow in fp16 and the step is left out. So it is not fused there, unless captured, which
    would wait for the host: momenta are then made here, of zeros, which is the same.
    """
    kind, options = torch.optim.SGD, {"momentum": 0.9, "nesterov": recipe.nesterov}
    if recipe.optimizer == "adamw":
        kind, options = torch.optim.AdamW, {}
    options["fused"] = captured or recipe.precision != "fp16"
    made = kind(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, **options)
    if captured and kind is torch.optim.SGD:
        for group in made.param_groups:
            for parameter in group["params"]:
                made.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return made


def set_rate(optimizer: torch.optim.Optimizer, rate: float | Tensor) -> None:
    """A number, or where one is, for a CUDA graph to read."""
    for group in optimizer.param_groups:
        group["lr"] = rate
        if "capturable" in group:
            group["capturable"] = torch.is_tensor(rate) and rate.is_cuda


def state_of(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Its state, with the rate as a number."""
    state = optimizer.state_dict()
    groups = [group | {"lr": float(group["lr"])} for group in state["param_groups"]]
    return state | {"param_groups": groups}
