"""Multi-view contrast: the loss by loops, what is nearest, and what the queue takes."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from msclr.methods import Batch, MultiView, multiview
from msclr.nn import STGCN
from tests.methods.test_skeletonclr import A, B, C, view

T = 0.2


def make(names=(A, B), **settings) -> MultiView:
    torch.manual_seed(0)
    encoder = STGCN(list(names), 4, 12, dropout=0.0)
    made = MultiView(encoder, embedding_dim=6, temperature=T, **settings).double()
    for p in made.query.parameters():
        p.data += 0.2 * torch.randn_like(p)
    return made.train()


def a_batch(names=(A, B), clips: int = 4, seed: int = 1) -> Batch:
    return Batch(view(list(names) * clips, seed), {}, None, len(names))  # row b*L + l


def plain_loss(z: torch.Tensor, bank: torch.Tensor, negatives: str) -> torch.Tensor:
    """The mean over clips and ordered pairs of layouts; z (B, L, E)."""
    clips, layouts, _ = z.shape
    losses = []
    for b in range(clips):
        for i in range(layouts):
            for j in range(layouts):
                if i == j:
                    continue
                candidates = [z[b, j], *bank]
                for other in range(clips):
                    views = range(layouts) if negatives == "batch" else [j]
                    candidates += [z[other, v] for v in views if other != b]
                logits = torch.stack([z[b, i] @ c for c in candidates]) / T
                losses.append(logits.logsumexp(0) - logits[0])
    return torch.stack(losses).mean()


@pytest.mark.parametrize("names", [(A, B), (A, B, C)], ids=["two layouts", "three layouts"])
@pytest.mark.parametrize("negatives", ["view", "batch"])
@pytest.mark.parametrize("queue", [0, 7])
def test_loss_and_gradients_are_those_of_the_formula(queue, negatives, names):
    method, batch = make(names, negatives=negatives, queue_size=queue), a_batch(names)
    hand = copy.deepcopy(method)
    bank = hand.queue.keys if queue else torch.empty(0, 6).double()
    z = hand.query(batch.query)
    wanted = plain_loss(z.unflatten(0, (4, -1)), bank, negatives)
    wanted.backward()
    out = method(batch)
    out.loss.backward()
    torch.testing.assert_close(out.loss, wanted, rtol=1e-10, atol=1e-10)
    for (name, p), other in zip(
        method.query.named_parameters(), hand.query.parameters(), strict=True
    ):
        torch.testing.assert_close(p.grad, other.grad, rtol=1e-8, atol=1e-10, msg=name)
    assert torch.equal(out.keys, z) and not out.keys.requires_grad


def test_contrast_accuracy_counts_keys_nearest_of_all_clips_and_the_queue():
    method, batch = make((A, B, C), queue_size=3), a_batch((A, B, C))
    z = copy.deepcopy(method).query(batch.query).unflatten(0, (4, 3)).detach()  # (B, L, E)
    method.queue.keys[:] = z[2, 1]  # equal to one key, near to others
    method.queue.keys[0] = torch.nn.functional.normalize(z[1, 0] + z[1, 2], dim=0)
    right = []
    for b in range(4):
        for i in range(3):
            for j in range(3):
                if i != j:
                    rivals = torch.cat([z[[o for o in range(4) if o != b], j], method.queue.keys])
                    right.append(float(z[b, i] @ z[b, j] >= (rivals @ z[b, i]).max() - 1e-12))
    assert 0 < sum(right) < len(right)
    assert math.isclose(
        float(method(batch).contrast_accuracy), sum(right) / len(right), abs_tol=1e-6
    )


class Rank:
    """In place of a process group of two."""

    def __init__(self, number: int):
        self.number = number

    def rank(self) -> int:
        return self.number


def test_each_rank_looks_for_its_own_clips_among_those_of_all(monkeypatch):
    method = make(queue_size=3)
    z = torch.nn.functional.normalize(torch.randn(6, 2, 6).double(), dim=2)  # (B, L, E)
    z[2:, 1] = z[2:, 0]  # the last four clips are found, of both ranks some
    whole = method._accuracy(z.flatten(0, 1), 2)
    monkeypatch.setattr(multiview, "of_all_ranks", lambda keys, group: z.flatten(0, 1))
    parts = []
    for number in range(2):
        method.process_group = Rank(number)
        parts.append(method._accuracy(z[3 * number : 3 * number + 3].flatten(0, 1), 2))
    assert parts[0] < parts[1] == 1
    assert math.isclose(float(sum(parts) / 2), float(whole), abs_tol=1e-6)


def test_there_is_no_key_encoder_and_no_queue_unless_asked_for():
    method = make()
    assert all(name.startswith("query.") for name in method.state_dict())
    method.enqueue(method(a_batch()).keys)
    queued = make(queue_size=5)
    out = queued(a_batch())
    queued.enqueue(out.keys)
    assert torch.equal(queued.queue.keys, out.keys[-5:].roll(3, 0))
    assert queued.queue.pointer == 8 % 5
