"""MS-CrosSCLR: its loss by loops from the formulas, mining across streams, queues in step."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from msclr.methods import Batch, CrosSCLR, SkeletonCLR
from msclr.nn import STGCN
from tests.methods.test_skeletonclr import A, B, view

T, QUEUE, STREAMS = 0.2, 9, ("joint", "motion", "bone")
WITHIN = {"rtol": 1e-10, "atol": 1e-10}


def make(**settings) -> CrosSCLR:
    torch.manual_seed(0)
    settings = {"queue_size": QUEUE, "key_momentum": 0.9, "temperature": T} | settings
    encoders = {s: STGCN([A, B], 4, 12, dropout=0.0) for s in STREAMS}
    made = CrosSCLR(encoders, embedding_dim=6, **settings).double()
    for p in [*made.query.parameters(), *made.key.parameters()]:
        p.data += 0.2 * torch.randn_like(p)
    return made.train()


def batches(query=(A, B, B, A), key=(B, B, A, A), layouts: int = 1, seed: int = 1):
    return {
        s: Batch(
            view(list(query), seed + 10 * i), view(list(key), seed + 10 * i + 1), None, layouts
        )
        for i, s in enumerate(STREAMS)
    }


def by_hand(method: CrosSCLR, given) -> tuple[dict, dict]:
    """Queries (with their graph) and keys of a batch for each stream, from copies."""
    method = copy.deepcopy(method)
    for k, q in zip(method.key.parameters(), method.query.parameters(), strict=True):
        k.data = method.key_momentum * k.data + (1 - method.key_momentum) * q.data
    with torch.no_grad():
        keys = {s: method.key[s](given[s].key) for s in STREAMS}
    return {s: method.query[s](given[s].query) for s in STREAMS}, keys


def log_softmax_mean(logits: list, positives: list[int]):
    """- mean over positives of log softmax."""
    total = torch.logsumexp(torch.stack(logits), 0)
    return -sum(logits[i] - total for i in positives) / len(positives)


def plain_loss(q, k, bank, crossing: bool, context: bool, top: int):
    """The loss of one clip: q, k {stream: (E,)}, bank {stream: (Q, E)}."""
    loss, size = 0.0, len(bank["joint"])
    for v in STREAMS:
        partners = [u for u in STREAMS if u != v]
        own = [q[v] @ k[v] / T] + [q[v] @ row / T for row in bank[v]]
        if not crossing:
            loss = loss + log_softmax_mean(own, [0])
            continue
        for u in partners:
            near = sorted(range(size), key=lambda j, u=u: -float(q[u].detach() @ bank[u][j]))[:top]
            logits, positives = list(own), [0] + [1 + j for j in near]
            if context:
                logits += [(q[u] @ bank[u][j]) * (q[v] @ bank[v][j]) / T for j in range(size)]
                positives += [1 + size + j for j in near]
            loss = loss + log_softmax_mean(logits, positives) / len(partners)
    return loss


def mean_plain_loss(q, k, method: CrosSCLR, crossing: bool, pairs=None):
    bank = {s: method.queue[s].keys for s in STREAMS}
    pairs = pairs or [(row, row) for row in range(len(q["joint"]))]
    losses = [
        plain_loss(
            {s: q[s][i] for s in STREAMS},
            {s: k[s][j] for s in STREAMS},
            bank,
            crossing,
            method.context,
            method.mining_top_k,
        )
        for i, j in pairs
    ]
    return torch.stack(losses).mean()


@pytest.mark.parametrize(
    ("crossing", "context", "top"),
    [(False, True, 1), (True, True, 1), (True, True, 3), (True, False, 1), (True, False, 3)],
)
def test_loss_and_gradients_are_those_of_the_formulas(crossing, context, top):
    method = make(context=context, mining_top_k=top, cross_epoch=4)
    method.start_step(4 if crossing else 3)
    hand = copy.deepcopy(method)
    for k, q in zip(hand.key.parameters(), hand.query.parameters(), strict=True):
        k.data = 0.9 * k.data + 0.1 * q.data
    given = batches()
    keys = {s: hand.key[s](given[s].key) for s in STREAMS}
    wanted = mean_plain_loss(
        {s: hand.query[s](given[s].query) for s in STREAMS}, keys, hand, crossing
    )
    wanted.backward()
    out = method(given)
    out.loss.backward()
    torch.testing.assert_close(out.loss, wanted, **WITHIN)
    torch.testing.assert_close(out.keys, torch.stack([keys[s] for s in STREAMS], 1), **WITHIN)
    pairs = zip(method.query.named_parameters(), hand.query.parameters(), strict=True)
    for (name, p), other in pairs:
        torch.testing.assert_close(p.grad, other.grad, rtol=1e-8, atol=1e-10, msg=name)
    assert all(p.grad is None for p in method.key.parameters())


def test_the_cases_differ_by_far_more_than_the_tolerance():
    losses = []
    for crossing, context, top in [(0, 1, 1), (1, 1, 1), (1, 1, 3), (1, 0, 1), (1, 0, 3)]:
        method = make(context=bool(context), mining_top_k=top)
        method.crossing = bool(crossing)
        losses.append(float(method(batches()).loss.detach()))
    assert min(abs(a - b) for i, a in enumerate(losses) for b in losses[:i]) > 1e-3


@pytest.mark.parametrize("context", [True, False])
def test_all_pairs_take_every_two_layouts_of_a_clip(context):
    method = make(context=context)
    method.crossing = True
    given = batches((A, B, A, B), (A, B, A, B), layouts=2)
    q, k = by_hand(method, given)
    wanted = mean_plain_loss(q, k, method, True, [(0, 1), (1, 0), (2, 3), (3, 2)])
    torch.testing.assert_close(method(given).loss, wanted, **WITHIN)


def test_contrast_accuracy_is_the_mean_of_the_streams():
    for crossing, context in [(False, True), (True, True), (True, False)]:
        method, given = make(context=context), batches()
        method.crossing = crossing
        q, k = by_hand(method, given)
        for s, share in zip(STREAMS, (0.9, 0.999, 0.99), strict=True):
            method.queue[s].keys[:] = share * k[s][1]
        right = [
            float(q[s][i] @ k[s][i] > (method.queue[s].keys @ q[s][i]).max())
            for s in STREAMS
            for i in range(4)
        ]
        assert 0 < sum(right) < len(right)
        found = float(method(given).contrast_accuracy)
        assert math.isclose(found, sum(right) / len(right), abs_tol=1e-6)


def test_mining_begins_with_its_epoch_or_never():
    method = make(cross_epoch=2)
    seen = []
    for epoch in (0, 1, 2, 3):
        method.start_step(epoch)
        seen.append(method.crossing)
    assert seen == [False, False, True, True]
    never = make(cross_epoch=None)
    never.start_step(10_000)
    assert not never.crossing


def test_slots_of_the_queues_stay_the_same_clips():
    method = make()
    for step in range(5):  # 20 keys through 9 slots
        clip = torch.arange(4) + 4.0 * step
        keys = torch.stack([clip + 100 * s for s in range(3)], 1)[..., None].expand(-1, -1, 6)
        method.enqueue(keys.double())
    joint, motion, bone = (method.queue[s].keys[:, 0] for s in STREAMS)
    assert sorted(joint.tolist()) == list(range(11, 20))
    assert torch.equal(motion - joint, torch.full((9,), 100.0).double())
    assert torch.equal(bone - joint, torch.full((9,), 200.0).double())
    assert {int(method.queue[s].pointer) for s in STREAMS} == {20 % 9}


def test_key_encoders_begin_as_copies_and_all_move_when_mining_too():
    encoders = {s: STGCN([A, B], 4, 12, dropout=0.0) for s in STREAMS}
    method = CrosSCLR(encoders, embedding_dim=6, queue_size=QUEUE).double()
    for k, q in zip(method.key.parameters(), method.query.parameters(), strict=True):
        assert torch.equal(k, q) and k.data_ptr() != q.data_ptr() and not k.requires_grad
    heads = [method.query[s].head[0].weight for s in STREAMS]
    assert not torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    moved = make()
    moved.crossing = True
    before = copy.deepcopy(moved)
    moved(batches())
    for s in STREAMS:
        triples = zip(
            moved.key[s].parameters(),
            before.key[s].parameters(),
            moved.query[s].parameters(),
            strict=True,
        )
        for new, k, q in triples:
            torch.testing.assert_close(new, 0.9 * k + 0.1 * q.detach())


def test_before_mining_each_stream_is_trained_as_skeletonclr_alone():
    method, given = make(), batches()
    losses = []
    for s in STREAMS:
        alone = SkeletonCLR(STGCN([A, B], 4, 12, dropout=0.0), embedding_dim=6, queue_size=QUEUE,
                            key_momentum=0.9, temperature=T).double().train()  # fmt: skip
        alone.query.load_state_dict(method.query[s].state_dict())
        alone.key.load_state_dict(method.key[s].state_dict())
        alone.queue.load_state_dict(method.queue[s].state_dict())
        losses.append(alone(given[s]).loss)
    torch.testing.assert_close(method(given).loss, torch.stack(losses).sum(), **WITHIN)


def test_similarities_are_float32_under_autocast():
    method = make().float()
    method.crossing = True
    given = {
        s: Batch(*({n: v._replace(x=v.x.float()) for n, v in part.items()} for part in b[:2]))
        for s, b in batches().items()
    }
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert method(given).loss.dtype == torch.float32


def test_the_context_of_two_streams_is_computed_once(monkeypatch):
    summed = []
    original = torch.Tensor.logsumexp
    monkeypatch.setattr(
        torch.Tensor, "logsumexp", lambda x, *a: summed.append(x.shape) or original(x, *a)
    )
    method = make()
    method.crossing = True
    method(batches())
    assert summed.count((4, QUEUE)) == 3 + 3  # the streams' own, and their pairs
