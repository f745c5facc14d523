"""Trials of a form: a copy with random weights must give what the module's own forward gives."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from msclr import kernels
from msclr.nn.accelerate.swapping import Swapped, swap, swap_back


def difference_of_graph_conv(module: nn.Module, form: type[Swapped]) -> str | None:
    """Why a graph convolution is not of a form; None where it is."""

    @torch.no_grad()
    def compare(trial: nn.Module, generator: torch.Generator) -> None:
        for parameter in trial.parameters():
            parameter.copy_(positive(parameter.shape, generator))
        inputs = form.trial(trial, generator)
        for training in (True, False):
            trial.training = training  # not its norms: random batches prove nothing there
            wanted = trial.forward(*inputs)
            swap(trial, form)
            got = trial.forward(*inputs)
            swap_back(trial)
            _check_alike(_flat(got), _flat(wanted))

    return _tried(module, compare)


def difference_of_block(block: nn.Module, form: type[Swapped]) -> str | None:
    """Why a block is not of a form; None where it is.

    Outputs, gradients and statistics are compared, in training and eval, without dropout.
    """

    def compare(trial: nn.Module, generator: torch.Generator) -> None:
        _scatter(trial, generator)
        inputs = form.trial(trial, generator)
        for training in (True, False):
            trial.train(training)
            other = copy.deepcopy(trial)
            wanted = _step(trial, trial.forward, inputs)
            swap(other, form)
            got = _step(other, other.whole, inputs)
            _check_alike(got, wanted)

    return _tried(block, compare)


def positive(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu") + 0.5


def normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")


def _tried(module: nn.Module, compare: Callable[[nn.Module, torch.Generator], None]) -> str | None:
    if "forward" in vars(module):
        return "its forward was replaced on the instance"
    try:
        with (
            kernels.use_backend("auto"),  # one of a GPU would not take the trial, which is on a CPU
            torch.inference_mode(False),
            torch.autocast("cpu", enabled=False),
            torch.random.fork_rng(devices=[]),
        ):
            trial = copy.deepcopy(module).to("cpu", torch.float64).eval()
            for part in trial.modules():  # so that no hook of the user's sees the trial
                part._forward_hooks.clear()
                part._forward_pre_hooks.clear()
            compare(trial, torch.Generator().manual_seed(0))
    except AssertionError:
        return "its forward computes something else"
    except Exception as error:  # somebody else's code: it may raise anything
        return f"could not be tried: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return None


def _flat(value: object) -> list[Tensor]:
    return [value] if torch.is_tensor(value) else [x for part in value for x in _flat(part)]


def _check_alike(got: list[Tensor], wanted: list[Tensor]) -> None:
    """As torch.testing.assert_close, which imports for seconds."""
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-8, equal_nan=True)


@torch.no_grad()
def _scatter(trial: nn.Module, generator: torch.Generator) -> None:
    """Every weight and statistic off its first value and of either sign; no dropout."""
    for parameter in trial.parameters():
        parameter.copy_(normal(parameter.shape, generator)).requires_grad_()
    for part in trial.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.copy_(normal(part.running_mean.shape, generator))
            part.running_var.copy_(positive(part.running_var.shape, generator))


@torch.enable_grad()
def _step(block: nn.Module, forward: Callable, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """What a forward and a backward pass give and leave behind."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    y = forward(*inputs)
    y = y if torch.is_tensor(y) else y[0]
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    learned = [*inputs, *block.parameters()]
    gradients = torch.autograd.grad(y, learned, weights, materialize_grads=True)
    return [y.detach(), *gradients, *block.buffers()]
