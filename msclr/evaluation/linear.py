"""Linear evaluation: one linear layer trained on the features of a frozen encoder."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from msclr.errors import InputError
from msclr.evaluation.logistic import ITERATIONS, fit_logistic
from msclr.evaluation.metrics import check_split, per_class_accuracy, top_k_accuracy

EPOCHS, LR, BATCH_SIZE = 100, 3.0, 128  # of the protocol of AimCLR and CrosSCLR
SOLVERS = ("sgd", "lbfgs")
# Over the loss of a guess. Features without any information train to a loss that wobbles about it.
_CLEARLY_OVER = 1.05


@dataclass(frozen=True, eq=False)
class LinearResult:
    """A linear classifier and how it did on the validation clips. Accuracies are in percent.

    top1, top5, logits, per_class, weight and bias are those of the last epoch, the figures to
    report. best_top1 is the highest top-1 of any epoch (as papers report it, chosen on the very
    clips it is measured on), best_epoch the first epoch that reached it, counted from 1, and
    best_top5 the top-5 of that same epoch; all three are None by L-BFGS, which has no epochs.
    per_class is None for a class without clips. notes are sentences that whoever reads the figures
    should know: that training was not stable.
    """

    weight: Tensor  # (classes, D)
    bias: Tensor  # (classes,)
    logits: Tensor  # (N_val, classes)
    top1: float
    top5: float
    best_top1: float | None
    best_top5: float | None
    best_epoch: int | None
    per_class: list[float | None]
    history: list[tuple[int, float, float]]  # (epoch, train loss, val top-1)
    notes: list[str]

    def figures(self) -> dict[str, float | None]:
        """The accuracies by the names that results have for them."""
        names = ("top1", "top5", "best_top1", "best_top5", "best_epoch")
        return {name: getattr(self, name) for name in names}


@torch.no_grad()
def fit_linear(
    train_features: Tensor,
    train_labels: Tensor,
    val_features: Tensor,
    val_labels: Tensor,
    num_classes: int,
    *,
    epochs: int = EPOCHS,
    lr: float = LR,
    milestones: Sequence[int] | None = None,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    momentum: float = 0.9,
    classifiers: int = 1,
    solver: str = "sgd",
) -> LinearResult:
    """Trains softmax regression by SGD, the linear protocol of AimCLR and CrosSCLR; or solves it.

    With ``solver="lbfgs"`` it is logistic regression on standardised features, solved to
    convergence, see :func:`~msclr.evaluation.logistic.fit_logistic`; on small sets 100 epochs of
    the papers' SGD end far from there. It takes none of the options of SGD, which the rest of this
    text is about.

    Features (N, D) float (half precision is computed in float32), labels (N,) integers below
    `num_classes`. Runs on the device of `train_features`. No weight decay; the rate falls tenfold
    after each epoch of `milestones`, after 80 % of the epochs where none are given; the last,
    smaller batch of an epoch is kept.

    The gradient of the mean cross-entropy of a batch x (B, D), y (B,) is written out, which spares
    autograd and its many small operations:

        G  = (softmax(x W^T + b) - onehot(y)) / B                 (B, classes)
        vW = momentum * vW + G^T x,         W = W - lr * vW
        vb = momentum * vb + sum_rows(G),   b = b - lr * vb

    With several ``classifiers``, features are those of as many encoders side by side, each divided
    by their number: the logits are then the mean over one classifier per encoder, and the bias, the
    mean of theirs, moves as much slower.

    All random numbers come from one CPU generator seeded with `seed`: first the weights, N(0, 0.01)
    (standard deviation; drawn in float32), then a permutation of the clips per epoch. Biases start
    at 0.

    Features are taken as they are, as in the papers: no standardisation. The rate of 3 suits the
    pooled output of ST-GCN, whose entries are of order 0.1 to 1. Features a hundred times smaller
    would hardly train in 100 epochs; scale such features first. On small sets of large features it
    is too fast: after the first epoch the loss climbs above ln(classes), that of a guess, and
    rounding alone then moves the accuracy by some points. `notes` says so where it happens; a lower
    `lr` mends it.

    Raises InputError for features or labels that do not fit together, options out of range, and
    features so large that training overflows.
    """
    check_options(epochs, lr, batch_size, momentum, solver=solver, seed=seed)
    if milestones is None:
        milestones = (max(1, epochs * 4 // 5),)
    x, y, val, val_labels = check_split(
        train_features, train_labels, val_features, val_labels, num_classes
    )
    if solver == "lbfgs":
        weight, bias, converged = fit_logistic(x, y, num_classes)
        notes = [] if converged else [f"L-BFGS did not come to an end in {ITERATIONS} iterations"]
        logits = torch.addmm(bias, val.double(), weight.T)
        return _result(weight.to(x), bias.to(x), logits.to(x), val_labels, notes=notes)
    generator = torch.Generator().manual_seed(seed)
    weight = 0.01 * torch.randn(num_classes, x.shape[1], generator=generator)
    classifier = _SoftmaxRegression(weight.to(x), momentum, 1.0 / classifiers)

    history, best_top1, best_top5, best_epoch = [], -1.0, 0.0, 0
    for epoch in range(1, epochs + 1):
        rate = lr * 0.1 ** sum(epoch > milestone for milestone in milestones)
        loss = x.new_zeros(())
        for batch in torch.randperm(len(x), generator=generator).to(x.device).split(batch_size):
            loss += classifier.step(x[batch], y[batch], rate)
        logits = classifier(val)
        if not (loss.isfinite() and logits.isfinite().all()):
            raise InputError(
                f"linear evaluation overflowed in epoch {epoch}; features reach "
                f"{x.abs().max().item():.3g}: scale them down or lower the rate (lr {lr:g})"
            )
        top1 = top_k_accuracy(logits, val_labels, 1)
        history.append((epoch, loss.item() / len(x), top1))
        if top1 > best_top1:
            best_top1, best_top5, best_epoch = top1, top_k_accuracy(logits, val_labels, 5), epoch

    best = {"best_top1": best_top1, "best_top5": best_top5, "best_epoch": best_epoch}
    notes = _stability_notes(history, num_classes, lr)
    weight, bias = classifier.weight, classifier.bias
    return _result(weight, bias, logits, val_labels, history=history, notes=notes, **best)


def _result(
    weight: Tensor, bias: Tensor, logits: Tensor, val_labels: Tensor, **more
) -> LinearResult:
    none = {"best_top1": None, "best_top5": None, "best_epoch": None, "history": []}
    return LinearResult(
        weight=weight,
        bias=bias,
        logits=logits,
        top1=top_k_accuracy(logits, val_labels, 1),
        top5=top_k_accuracy(logits, val_labels, 5),
        per_class=per_class_accuracy(logits, val_labels, len(bias)),
        **none | more,
    )


def _stability_notes(
    history: Sequence[tuple[int, float, float]], num_classes: int, lr: float
) -> list[str]:
    guess = math.log(num_classes)
    later = history[1:] or history  # training may begin far from where it is going
    over = [loss for _, loss, _ in later if loss > _CLEARLY_OVER * guess]
    if not over:
        return []
    return [
        f"the linear classifier's training loss was above ln({num_classes}) = {guess:.3g}, that of "
        f"a guess, in {len(over)} of {len(history)} epochs (at most {max(over):.3g}): training may "
        f"be unstable with lr {lr:g}, and rounding then moves the figure; compare a lower lr"
    ]


class _SoftmaxRegression:
    """A linear layer with its own cross-entropy gradient and SGD with momentum."""

    def __init__(self, weight: Tensor, momentum: float, bias_share: float):
        self.weight = weight  # (classes, D)
        self.bias = weight.new_zeros(len(weight))
        self.momentum, self.bias_share = momentum, bias_share
        self.weight_velocity = torch.zeros_like(self.weight)
        self.bias_velocity = torch.zeros_like(self.bias)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight.T)  # (N, classes)

    def step(self, x: Tensor, y: Tensor, lr: float) -> Tensor:
        """One update on a batch; returns the sum of its losses from before the update."""
        log_p = self(x).log_softmax(dim=1)  # (B, classes)
        picked = log_p.gather(1, y[:, None])  # (B, 1)
        loss = -picked.sum()
        gradient = log_p.exp_()  # of the sum over the batch; the mean's 1 / B enters below
        gradient.scatter_add_(1, y[:, None], torch.full_like(picked, -1.0))
        mean = 1.0 / len(x)
        self.weight_velocity.addmm_(gradient.T, x, beta=self.momentum, alpha=mean)
        self.bias_velocity.mul_(self.momentum).add_(
            gradient.sum(dim=0), alpha=mean * self.bias_share
        )
        self.weight.sub_(self.weight_velocity, alpha=lr)
        self.bias.sub_(self.bias_velocity, alpha=lr)
        return loss


def check_options(
    epochs: int,
    lr: float,
    batch_size: int,
    momentum: float = 0.0,
    what: str = "linear evaluation",
    solver: str = "sgd",
    seed: int = 0,
) -> None:
    """Raise InputError for an option of `fit_linear` that is out of range."""
    check_seed(seed)
    if solver not in SOLVERS:
        raise InputError(f"{what}: solver is {solver!r}; choose one of {', '.join(SOLVERS)}")
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value < 1:
            raise InputError(f"{what}: {name} is {value}; it must be 1 or more")
    if not 0 < lr <= torch.finfo(torch.float32).max:
        raise InputError(f"{what}: lr is {lr}; it must be a number above 0 that float32 can hold")
    if not 0 <= momentum < 1:
        raise InputError(f"{what}: momentum is {momentum}; it must lie in 0..1, 1 excluded")


def check_seed(seed: int) -> None:
    """Raise InputError for a seed that PyTorch's generators do not take as it is."""
    if not 0 <= seed < 2**63:
        raise InputError(f"seed is {seed}; wanted a whole number from 0 to 2^63 - 1")
