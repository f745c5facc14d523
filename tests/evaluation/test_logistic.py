"""Linear evaluation by L-BFGS: the optimum of its formula, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from msclr.cli import main
from msclr.errors import InputError
from msclr.evaluation import (
    evaluate_ensemble,
    evaluate_linear,
    evaluate_transfer,
    logistic,
    open_run,
)
from msclr.evaluation.linear import fit_linear
from msclr.evaluation.logistic import DECAY, fit_logistic
from msclr.evaluation.transfer import transfer_features, transferred
from msclr.export.classifier import head_of
from tests.tiny import LAYOUTS

A, B = LAYOUTS


@pytest.fixture
def clips():
    """Features (90, 5) of unlike size that hardly tell 3 classes apart, and labels."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(3, (90,), generator=generator)
    x = torch.randn(90, 5, generator=generator, dtype=torch.float64) + F.one_hot(y, 5)
    return x * torch.tensor([1e-4, 1.0, 1e3, 1.0, 1.0]) + 7.0, y


def gradient_at(x, y, weight, bias) -> float:
    """The largest entry of the formula's gradient at a solution for features as they are."""
    mean, deviation = x.mean(0), x.std(0, correction=0)
    w, b = (weight * deviation).requires_grad_(), (bias + weight @ mean).requires_grad_()
    loss = F.cross_entropy((x - mean) / deviation @ w.T + b, y) + 1e-4 * w.square().sum()
    loss.backward()
    return max(w.grad.abs().max().item(), b.grad.abs().max().item())


def test_gradient_of_the_formula_is_zero(clips):
    x, y = clips
    weight, bias, converged = fit_logistic(x, y, 3)
    assert converged and gradient_at(x, y, weight, bias) < 2e-6


def test_correlated_features_are_solved_in_few_iterations(monkeypatch):
    monkeypatch.setattr(logistic, "ITERATIONS", 260)
    generator = torch.Generator().manual_seed(0)
    spread = torch.logspace(0, -3, 100, dtype=torch.float64)
    mixed = torch.linalg.qr(torch.randn(100, 100, generator=generator, dtype=torch.float64))[0]
    x = torch.randn(800, 100, generator=generator, dtype=torch.float64) * spread @ mixed
    y = (x @ mixed.T / spread)[:, 40:48].argmax(1)  # seen in small directions
    weight, bias, converged = fit_logistic(x, y, 8)
    assert converged and gradient_at(x, y, weight, bias) < 2e-6


def test_agrees_with_scikit_learn(clips):
    x, y = clips
    weight, bias, _ = fit_logistic(x, y, 3)
    z = StandardScaler().fit_transform(x)
    C = 1 / (2 * DECAY * len(x))  # of the sum over clips and half the squared norm
    other = LogisticRegression(C=C, tol=1e-8, max_iter=10_000).fit(z, y)
    ours, theirs = x @ weight.T + bias, torch.from_numpy(other.decision_function(z))
    centred = [logits - logits.mean(1, keepdim=True) for logits in (ours, theirs)]
    torch.testing.assert_close(*centred, rtol=1e-3, atol=1e-3)


def test_constant_features_and_classes_without_clips(clips):
    x, y = clips
    more = torch.cat([x, torch.full((90, 1), 1e6, dtype=x.dtype)], 1)
    result = fit_linear(more, y, more, y, 4, solver="lbfgs")
    plain = fit_linear(x, y, x, y, 3, solver="lbfgs")
    assert result.weight[:, 5].abs().max() == 0 and result.per_class[3] is None
    assert result.top1 == plain.top1 and result.best_top1 is None


def test_half_precision_is_solved_in_double(clips):
    x, y = clips[0][:, 3:].half(), clips[1]
    half = fit_linear(x, y, x, y, 3, solver="lbfgs")
    torch.testing.assert_close(
        half.logits, fit_linear(x.double(), y, x.double(), y, 3, solver="lbfgs").logits.float()
    )


def test_protocols_and_the_exported_head_take_it(folders):
    run = open_run(folders["joint"])
    one = evaluate_linear(run, A, solver="lbfgs")
    assert one["solver"] == "lbfgs" and "lr" not in one and "seed" not in one
    assert one["files"]["json"].endswith("-solver_lbfgs.json")
    assert one["command"].endswith("--solver lbfgs")
    both = evaluate_ensemble([run], [A, B], solver="lbfgs")
    assert both["members"][0]["top1"] == one["top1"]
    assert both["command"].endswith("--solver lbfgs")
    across = evaluate_transfer(run, A, A, solver="lbfgs")
    assert across["top1"] == one["top1"]
    assert len(head_of(run, "linear-" + A + "-joint-pretrained-solver_lbfgs").classes) == 2


def test_a_convention_in_other_units_transfers(folders):
    """Features of the tested convention that are shifted and scaled as a whole."""
    run = open_run(folders["joint"])
    source, target = transfer_features(run, A, B)
    moved = replace(target, train=3 * target.train + 5, val=3 * target.val + 5)
    x, val = transferred(source, target, "lbfgs")
    torch.testing.assert_close(transferred(source, moved, "lbfgs")[1], val, rtol=0, atol=1e-3)
    assert x.mean(0).abs().max() < 1e-6 and val.abs().max() > 0.1
    assert transferred(source, moved, "sgd")[1] is moved.val
    top1 = evaluate_transfer(run, A, B, solver="lbfgs", features=(source, target))["top1"]
    fit = fit_linear(x, source.train_labels, val, target.val_labels, 2, solver="lbfgs")
    assert fit.top1 == top1


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["linear", "--lr", "0.1"], "takes no --seeds, --epochs, --lr"),
        (["linear", "--seeds", "1"], "takes no --seeds, --epochs, --lr"),
        (["finetune"], "finetune trains all weights and takes no --solver"),
        (["knn"], "takes no --solver"),
    ],
)
def test_other_options_are_refused(folders, arguments, words, capsys):
    protocol, *more = arguments
    asked = ["evaluate", protocol, str(folders["joint"]), "--solver", "lbfgs", *more]
    assert main(asked) == 2
    assert words in capsys.readouterr().err


def test_python_refuses_them_too(folders):
    with pytest.raises(InputError, match="solver lbfgs takes no epochs, lr"):
        evaluate_linear(open_run(folders["joint"]), A, epochs=2, lr=0.1, solver="lbfgs")
    with pytest.raises(InputError, match="solver is 'newton'; choose one of sgd, lbfgs"):
        evaluate_linear(open_run(folders["joint"]), A, solver="newton")


def test_a_line_says_so(folders, capsys):
    asked = ["evaluate", "linear", str(folders["joint"]), "--layout", A, "--solver", "lbfgs"]
    assert main(asked) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"linear {A} (joint, pretrained, lbfgs): top-1 ") and "best" not in line
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["best_epoch"] is None
