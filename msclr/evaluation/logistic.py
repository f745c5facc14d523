"""Logistic regression on the features of a frozen encoder, solved to convergence."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

DECAY = 1e-4
ITERATIONS = 1000


def fit_logistic(x: Tensor, y: Tensor, num_classes: int) -> tuple[Tensor, Tensor, bool]:
    """Multinomial logistic regression on standardised features, by L-BFGS in float64.

        z = (x - mean) / deviation                           of each feature over the clips
        W, b = argmin  mean_n crossentropy(z_n W^T + b, y_n) + 1e-4 * sum(W^2)

    The problem is convex, so nothing is drawn and there is no rate to choose; the factor 1e-4 was
    chosen on a person held out of training (docs/evaluation.md). A feature that is the same in all
    clips gets the deviation 1.

    Args:
        x: features (N, D) float.
        y: labels (N,) int64 below ``num_classes``.

    Returns:
        W (num_classes, D) and b (num_classes,) float64 for features as they are, not standardised,
        and whether the solver came to an end within 1,000 iterations.
    """
    x = x.double()
    mean, deviation = _moments(x)
    z = (x - mean) / deviation
    weight = z.new_zeros(num_classes, x.shape[1], requires_grad=True)
    bias = z.new_zeros(num_classes, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, max_eval=2 * ITERATIONS, line_search_fn="strong_wolfe"
    )

    @torch.enable_grad()
    def objective() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(z @ weight.T + bias, y) + DECAY * weight.square().sum()
        loss.backward()
        return loss

    solver.step(objective)
    converged = solver.state[weight]["n_iter"] < ITERATIONS
    weight, bias = weight.detach() / deviation, bias.detach()
    return weight, bias - weight @ mean, converged


def standardised(x: Tensor, by: Tensor) -> Tensor:
    """Features x (N, D) in float64, less the mean and over the deviation of ``by`` (K, D)."""
    mean, deviation = _moments(by.double())
    return (x.double() - mean) / deviation


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    mean, deviation = x.mean(dim=0), x.std(dim=0, correction=0)
    return mean, torch.where(deviation > 1e-12 * mean.abs(), deviation, 1.0)
