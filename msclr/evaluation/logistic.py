"""Logistic regression on the features of a frozen encoder, solved to convergence."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

DECAY = 1e-4
ITERATIONS = 1220  # at most
_PLAIN, _ROUND = 200, 60  # of them before the first preconditioner, and with each
_TOLERANCE = 1e-6  # of the largest entry of the gradient
_CLIPS_PER_FEATURE = 4  # at least, of those that a preconditioner is computed from


def fit_logistic(x: Tensor, y: Tensor, num_classes: int) -> tuple[Tensor, Tensor, bool]:
    """Multinomial logistic regression on standardised features, by L-BFGS in float64.

        z = (x - mean) / deviation                           of each feature over the clips
        W, b = argmin  mean_n crossentropy(z_n W^T + b, y_n) + 1e-4 * sum(W^2)

    The problem is convex, so nothing is drawn and there is no rate to choose; the factor 1e-4 was
    chosen on a person held out of training (docs/evaluation.md). A feature that is the same in all
    clips gets the deviation 1.

    Where features are strongly correlated, plain L-BFGS needs thousands of iterations. After the
    first 200 it is therefore run in rounds, each in the coordinates in which the Hessian of every
    class on its own, at the point where the round begins, is the identity.

    Args:
        x: features (N, D) float.
        y: labels (N,) int64 below ``num_classes``.

    Returns:
        W (num_classes, D) and b (num_classes,) float64 for features as they are, not standardised,
        and whether no entry of the gradient is above 1e-6 after at most 1,220 iterations.
    """
    x = x.double()
    mean, deviation = _moments(x)
    z = (x - mean) / deviation
    z = torch.cat([z, z.new_ones(len(z), 1)], dim=1)  # (N, D + 1); the bias is the last weight
    decay = z.new_full((z.shape[1],), DECAY)
    decay[-1] = 0
    weight = z.new_zeros(num_classes, z.shape[1])
    weight, slope = _round(z, y, weight, decay, None, _PLAIN)
    for _ in range((ITERATIONS - _PLAIN) // _ROUND):
        if slope <= _TOLERANCE:
            break
        weight, slope = _round(z, y, weight, decay, _hessians(z, weight, decay), _ROUND)
    weight, bias = weight[:, :-1] / deviation, weight[:, -1]
    return weight, bias - weight @ mean, slope <= _TOLERANCE


def _round(
    z: Tensor, y: Tensor, start: Tensor, decay: Tensor, factor: Tensor | None, iterations: int
) -> tuple[Tensor, float]:
    """A better weight (classes, D + 1) than ``start``, and the gradient's largest entry there.

    factor: lower triangular (classes, D + 1, D + 1), the identity if not given; its transpose times
        a weight is what L-BFGS moves.
    """

    def weight_at(move: Tensor) -> Tensor:
        if factor is None:
            return start + move
        return start + torch.linalg.solve_triangular(factor.mT, move[..., None], upper=True)[..., 0]

    def loss_at(weight: Tensor) -> Tensor:
        return F.cross_entropy(z @ weight.T, y) + (decay * weight.square()).sum()

    move = torch.zeros_like(start, requires_grad=True)
    solver = torch.optim.LBFGS(
        [move],
        max_iter=iterations,
        max_eval=2 * iterations,
        history_size=_ROUND,
        tolerance_grad=_TOLERANCE,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    @torch.enable_grad()
    def objective() -> Tensor:
        solver.zero_grad()
        loss = loss_at(weight_at(move))
        loss.backward()
        return loss

    solver.step(objective)
    with torch.enable_grad():
        weight = weight_at(move.detach()).requires_grad_()
        (gradient,) = torch.autograd.grad(loss_at(weight), weight)
    return weight.detach(), gradient.abs().max().item()


def _hessians(z: Tensor, weight: Tensor, decay: Tensor) -> Tensor:
    """The Hessian of each class, (classes, D + 1, D + 1), as its lower Cholesky factor.

    Of many clips evenly spaced ones are enough: it only has to be near.
    """
    z = z[:: max(1, len(z) // (_CLIPS_PER_FEATURE * z.shape[1]))]
    p = (z @ weight.T).softmax(dim=1)  # (N, classes)
    found = torch.stack([(z * h[:, None]).T @ z for h in (p * (1 - p)).T.unbind()]) / len(z)
    found.diagonal(dim1=1, dim2=2).add_(2 * decay + 1e-8)  # of the bias, which has no decay
    return torch.linalg.cholesky(found)


def standardised(x: Tensor, by: Tensor) -> Tensor:
    """Features x (N, D) in float64, less the mean and over the deviation of ``by`` (K, D)."""
    mean, deviation = _moments(by.double())
    return (x.double() - mean) / deviation


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    mean, deviation = x.mean(dim=0), x.std(dim=0, correction=0)
    return mean, torch.where(deviation > 1e-12 * mean.abs(), deviation, 1.0)
