import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from msclr.errors import InputError
from msclr.evaluation import linear
from msclr.evaluation.linear import fit_linear


def blobs(clips, classes=4, dim=6, spread=0.05, seed=0, dtype=torch.float32):
    """Points around well separated class centres, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (clips,), generator=generator)
    noise = torch.randn(clips, dim, generator=generator, dtype=dtype)
    return torch.eye(classes, dim, dtype=dtype)[labels] + spread * noise, labels


def fit_by_autograd(x, y, classes, epochs, lr, milestones, batch_size, seed, momentum):
    """The protocol in plain PyTorch: nn.Linear, cross_entropy, SGD, MultiStepLR."""
    generator = torch.Generator().manual_seed(seed)
    layer = torch.nn.Linear(x.shape[1], classes, dtype=x.dtype)
    with torch.no_grad():
        layer.weight.copy_(0.01 * torch.randn(layer.weight.shape, generator=generator))
        layer.bias.zero_()
    optimizer = torch.optim.SGD(layer.parameters(), lr=lr, momentum=momentum)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(milestones), gamma=0.1)
    losses = []
    for _ in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(x), generator=generator).split(batch_size):
            loss = cross_entropy(layer(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        schedule.step()
        losses.append(total / len(x))
    return layer, losses


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("clips", [48, 50])  # 50: the last batch holds two clips
def test_equals_autograd_in_float64(clips, momentum):
    x, y = blobs(clips, spread=1.0, dtype=torch.float64)
    val, val_labels = blobs(31, spread=1.0, seed=1, dtype=torch.float64)
    options = dict(epochs=7, lr=3.0, milestones=(3, 5), batch_size=16, seed=5, momentum=momentum)
    result = fit_linear(x, y, val, val_labels, 4, **options)
    layer, losses = fit_by_autograd(x, y, 4, **options)

    torch.testing.assert_close(result.weight, layer.weight.detach(), rtol=0, atol=1e-10)
    torch.testing.assert_close(result.bias, layer.bias.detach(), rtol=0, atol=1e-10)
    torch.testing.assert_close(result.logits, layer(val).detach(), rtol=0, atol=1e-10)
    assert [loss for _, loss, _ in result.history] == pytest.approx(losses, abs=1e-10)


def test_separable_blobs_are_separated():
    result = fit_linear(*blobs(200), *blobs(100, seed=1), 4, epochs=10)
    assert result.top1 == result.top5 == result.best_top1 == 100.0
    assert result.per_class == [100.0] * 4
    top1 = [each for _, _, each in result.history]
    assert result.best_epoch == 1 + top1.index(100.0) < 10  # the first of several as good


def logits_of_ranks(ranks, labels, classes):
    """Logits (N, classes) by which the true class of each clip has so many others before it."""
    rows = []
    for rank, label in zip(ranks, labels, strict=True):
        others = [c for c in range(classes) if c != label]
        order = [*others[:rank], label, *others[rank:]]  # best first
        rows.append([float(classes - order.index(c)) for c in range(classes)])
    return torch.tensor(rows)


def test_result_describes_the_last_and_the_best_epoch(monkeypatch):
    labels = torch.tensor([0, 0, 3, 4])
    by_epoch = [
        logits_of_ranks(ranks, labels.tolist(), 6)
        for ranks in ([0, 3, 5, 5], [0, 0, 1, 5], [0, 0, 5, 5], [4, 0, 1, 2])
    ]

    class Scripted:
        """A classifier that learns what the test says."""

        def __init__(self, weight, momentum, bias_share):
            self.weight, self.bias = weight, weight.new_zeros(6)
            self.scores = iter(by_epoch)

        def __call__(self, x):
            return next(self.scores)

        def step(self, x, y, lr):
            return torch.tensor(0.5 * len(x))

    monkeypatch.setattr(linear, "_SoftmaxRegression", Scripted)
    result = fit_linear(X[:5], Y[:5], X[:4], labels, 6, epochs=4, batch_size=2)

    assert torch.equal(result.logits, by_epoch[-1])
    assert (result.top1, result.top5) == (25.0, 100.0)
    assert (result.best_epoch, result.best_top1, result.best_top5) == (2, 50.0, 75.0)
    assert result.per_class == [50.0, None, None, 0.0, 0.0, None]
    assert result.history == [(1, 0.5, 25.0), (2, 0.5, 50.0), (3, 0.5, 50.0), (4, 0.5, 25.0)]


def test_logits_are_those_of_the_weights_returned():
    val, val_labels = blobs(20, seed=1)
    result = fit_linear(*blobs(40), val, val_labels, 4, epochs=3, lr=0.1)
    torch.testing.assert_close(result.logits, val @ result.weight.T + result.bias)


@pytest.mark.parametrize(("epochs", "milestone"), [(1, 1), (2, 1), (9, 7), (10, 8), (100, 80)])
def test_the_rate_falls_after_four_fifths_of_the_epochs(epochs, milestone):
    data, options = (*blobs(12), *blobs(6, seed=1)), {"epochs": epochs, "lr": 0.1}
    usual = fit_linear(*data, 4, **options)
    assert torch.equal(usual.weight, fit_linear(*data, 4, milestones=[milestone], **options).weight)
    if milestone < epochs:
        never = fit_linear(*data, 4, milestones=[], **options)
        assert (usual.weight - never.weight).abs().max() > 1e-3


def test_a_loss_above_that_of_a_guess_is_noted():
    """The gradient of these features is so steep that a step of 3 overshoots by far."""
    x, y = blobs(60, spread=1.0)
    (note,) = fit_linear(10 * x, y, 10 * x, y, 4, epochs=5).notes
    assert "above ln(4) = 1.39, that of a guess, in 4 of 5 epochs" in note and "lr 3" in note
    assert fit_linear(x, y, x, y, 4, epochs=5, lr=0.1).notes == []


def test_features_that_say_nothing_are_no_reason_for_a_note_on_the_rate():
    """Their loss wobbles about ln(classes): a lower rate would not help."""
    x = torch.ones(60, 6) + 1e-4 * torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    y = torch.arange(60) % 4
    result = fit_linear(x, y, x, y, 4, lr=0.03, batch_size=20)
    assert max(loss for _, loss, _ in result.history) > math.log(4)
    assert result.notes == []


def test_class_without_clips_has_no_accuracy():
    result = fit_linear(*blobs(40), *blobs(40, seed=1), 6, epochs=2)
    assert result.per_class[4:] == [None, None]
    assert result.weight.shape == (6, 6) and result.logits.shape == (40, 6)


def test_same_seed_same_result_and_the_global_generator_is_left_alone():
    data = *blobs(50, spread=1.0), *blobs(20, spread=1.0, seed=1)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = fit_linear(*data, 4, epochs=3, batch_size=16, seed=7)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(2)
    again = fit_linear(*data, 4, epochs=3, batch_size=16, seed=7)
    other = fit_linear(*data, 4, epochs=3, batch_size=16, seed=8)
    assert torch.equal(first.weight, again.weight) and first.history == again.history
    assert not torch.equal(first.weight, other.weight)


def test_features_and_labels_are_left_alone():
    x, y = blobs(30)
    val, val_labels = blobs(10, seed=1)
    before = [each.clone() for each in (x, y, val, val_labels)]
    fit_linear(x.requires_grad_(), y, val, val_labels, 4, epochs=2)
    assert all(map(torch.equal, before, (x.detach(), y, val, val_labels)))
    assert x.grad is None


def test_half_precision_features_are_computed_in_float32():
    x, y = blobs(60)
    val, val_labels = blobs(20, seed=1)
    half = fit_linear(x.bfloat16(), y, val.bfloat16(), val_labels, 4, epochs=3)
    full = fit_linear(x.bfloat16().float(), y, val.bfloat16().float(), val_labels, 4, epochs=3)
    assert half.weight.dtype == torch.float32
    assert torch.equal(half.logits, full.logits)


X, Y = blobs(8)
NAN = torch.full((8, 6), float("nan"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X[0], Y, X, Y), r"train features have shape \(6,\)"),
        ((X[:0], Y[:0], X, Y), "train features have shape .* not empty"),
        ((X, Y, X[:0], Y[:0]), "val features have shape .* not empty"),
        ((X.long(), Y, X, Y), "wanted a float dtype"),
        ((NAN, Y, X, Y), "train features hold NaN"),
        ((X, Y, NAN, Y), "val features hold NaN"),
        ((X, Y, X[:, :3], Y), "6 columns and val features 3"),
        ((X, Y[:3], X, Y), r"train labels have shape \(3,\)"),
        ((X, Y, X, Y + 4), r"val labels lie in"),
        ((X, Y.float(), X, Y), "train labels are torch.float32"),
    ],
)
def test_bad_data_is_refused(data, message):
    with pytest.raises(InputError, match=message):
        fit_linear(*data, 4)


@pytest.mark.parametrize(
    "option",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"momentum": 1.0},
        {"momentum": -0.1},
    ],
)
def test_bad_options_are_refused(option):
    with pytest.raises(InputError, match=f"{next(iter(option))} is"):
        fit_linear(X, Y, X, Y, 4, **option)


def test_overflow_is_refused_not_reported_as_an_accuracy():
    with pytest.raises(InputError, match="overflowed in epoch 1"):
        fit_linear(X * 1e30, Y, X * 1e30, Y, 4, epochs=3)
