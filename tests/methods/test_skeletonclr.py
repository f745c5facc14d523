"""MS-SkeletonCLR and its embedder: rows in order, the loss by hand, the key encoder's average."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from msclr import kernels, layouts
from msclr.methods import AimCLR, Batch, Embedder, SkeletonCLR, View
from msclr.methods.momentum import momentum_copy, update_momentum
from msclr.nn import STGCN

A, B, C = LAYOUTS = ["h36m_17", "kinectv1_20", "smpl_24"]
FRAMES, BODIES, T = 8, 2, 0.2


def encoder(names=(A, B)) -> STGCN:
    return STGCN(list(names), 4, 12, dropout=0.0)


def make(method=SkeletonCLR, names=(A, B), **settings) -> SkeletonCLR:
    torch.manual_seed(0)
    settings = {"queue_size": 11, "key_momentum": 0.9, "temperature": T} | settings
    made = method(encoder(names), embedding_dim=6, **settings).double()
    for p in [*made.query.parameters(), *made.key.parameters()]:
        p.data += 0.2 * torch.randn_like(p)  # far from the initial values, where little differs
    return made.train()


def view(names: list[str], seed: int) -> dict[str, View]:
    """One random clip a row, under the layout that the row names."""
    source = torch.Generator().manual_seed(seed)
    views = {}
    for name in sorted(set(names), reverse=True):  # not in the order of the encoder's layouts
        rows = torch.tensor([i for i, n in enumerate(names) if n == name])
        shape = (len(rows), 3, FRAMES, layouts.get(name).num_joints, BODIES)
        x = torch.randn(shape, dtype=torch.float64, generator=source)
        views[name] = View(x, rows, torch.ones(len(rows), BODIES, dtype=torch.bool))
    return views


def a_batch(query=(A, B, B, A), key=(B, B, A, A), seed: int = 1) -> Batch:
    return Batch(view(list(query), seed), view(list(key), seed + 1))


def by_hand(method: SkeletonCLR, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys of a batch, from copies; the keys by the averaged weights."""
    query, key = copy.deepcopy(method.query), copy.deepcopy(method.key)
    for k, q in zip(key.parameters(), query.parameters(), strict=True):
        k.data = method.key_momentum * k.data + (1 - method.key_momentum) * q.data
    return query(batch.query), key(batch.key)


# Embedder


def test_embeddings_are_unit_vectors_in_row_order():
    embedder = make(names=LAYOUTS).query.eval()
    names = [C, A, B, A, C, B, C]
    views = view(names, 0)
    together = embedder(views)
    assert together.shape == (7, 6)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(7).double())
    for row, name in enumerate(names):
        place = views[name].rows.tolist().index(row)
        x, bodies = views[name].x, views[name].bodies
        alone = View(x[place : place + 1], torch.tensor([0]), bodies[place : place + 1])
        torch.testing.assert_close(embedder({name: alone})[0], together[row], rtol=0, atol=1e-10)


def test_dropped_embeddings_come_in_row_order_too():
    embedder = make().query.eval()
    views, order = view([B, A, A, B, A], 3), torch.tensor([3, 0, 4, 2, 1])
    plain, dropped = embedder(views, drop=True)
    torch.testing.assert_close(plain, embedder(views), rtol=0, atol=1e-10)
    assert (dropped - plain).abs().max() > 1e-6
    renumbered = {name: v._replace(rows=order[v.rows]) for name, v in views.items()}
    for found, wanted in zip(embedder(renumbered, drop=True), (plain, dropped), strict=True):
        torch.testing.assert_close(found[order], wanted, rtol=0, atol=1e-10)


def test_bodies_may_be_left_to_the_encoder():
    embedder = make().query.eval()
    named = view([A, B, A], 0)
    named[A].x[1, ..., 1] = 0
    named[A].bodies[1, 1] = False
    unnamed = {name: v._replace(bodies=None) for name, v in named.items()}
    torch.testing.assert_close(embedder(unnamed), embedder(named), rtol=0, atol=1e-12)


def test_embeddings_are_float32_under_autocast():
    embedder = Embedder(encoder(), 6).eval()
    views = {n: v._replace(x=v.x.float()) for n, v in view([A, B], 0).items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = embedder(views)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))


# Momentum


def test_momentum_copy_is_equal_apart_and_without_gradients():
    query = Embedder(encoder(), 6)
    key = momentum_copy(query)
    for (name, k), q in zip(key.named_parameters(), query.parameters(), strict=True):
        assert torch.equal(k, q), name
        assert k.data_ptr() != q.data_ptr(), name
        assert q.requires_grad and not k.requires_grad, name


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_momentum_update_is_the_moving_average_of_parameters_only(momentum):
    method = make()
    for buffer in method.query.buffers():
        buffer += 3
    key, query, address = method.key, method.query, next(method.key.parameters()).data_ptr()
    old = copy.deepcopy(key)
    before = copy.deepcopy(query.state_dict())
    update_momentum(key, query, momentum)
    for new, k, q in zip(key.parameters(), old.parameters(), query.parameters(), strict=True):
        torch.testing.assert_close(new, momentum * k + (1 - momentum) * q.detach())
    for new, k in zip(key.buffers(), old.buffers(), strict=True):
        assert torch.equal(new, k)
    assert all(torch.equal(v, before[n]) for n, v in query.state_dict().items())
    assert next(key.parameters()).data_ptr() == address


# SkeletonCLR


def test_loss_is_the_cross_entropy_of_the_key_among_the_queue():
    method, batch = make(), a_batch()
    q, k = by_hand(method, batch)
    out = method(batch)
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ method.queue.keys.T], dim=1) / T
    wanted = F.cross_entropy(logits, torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(out.loss, wanted)
    torch.testing.assert_close(out.keys, k)
    right = (logits[:, 0] > logits[:, 1:].max(1).values).float().mean()
    assert out.contrast_accuracy == right


def test_contrast_accuracy_counts_keys_that_outrank_the_queue():
    method, batch = make(), a_batch()
    q, k = by_hand(method, batch)
    method.queue.keys[:] = 0.999 * k[1]  # a rival that some keys outrank and others do not
    wanted = torch.stack([q[i] @ k[i] > (method.queue.keys @ q[i]).max() for i in range(4)])
    assert 0 < wanted.sum() < 4
    assert method(batch).contrast_accuracy == wanted.float().mean()


def test_gradient_reaches_the_query_encoder_only():
    method, batch = make(), a_batch()
    reference = copy.deepcopy(method)
    _, k = by_hand(method, batch)
    out = method(batch)
    out.loss.backward()
    assert not out.keys.requires_grad
    assert all(p.grad is None for p in method.key.parameters())
    q = reference.query(batch.query)
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ method.queue.keys.T], dim=1) / T
    (-logits.log_softmax(1)[:, 0].mean()).backward()
    pairs = zip(method.query.named_parameters(), reference.query.parameters(), strict=True)
    for (name, p), wanted in pairs:
        torch.testing.assert_close(p.grad, wanted.grad, rtol=1e-9, atol=1e-12, msg=name)


def test_a_step_moves_the_key_encoder_once_and_the_queue_only_on_request():
    method, batch = make(), a_batch()
    before, old = method.queue.keys.clone(), copy.deepcopy(method.key)
    out = method(batch)
    pairs = zip(method.key.parameters(), old.parameters(), method.query.parameters(), strict=True)
    for new, k, q in pairs:
        torch.testing.assert_close(new, 0.9 * k + 0.1 * q.detach())
    assert torch.equal(method.queue.keys, before)
    method.enqueue(out.keys)
    assert torch.equal(method.queue.keys[:4], out.keys)
    assert torch.equal(method.queue.keys[4:], before[4:])


def all_pairs_batch(names: list[str], clips: int) -> Batch:
    rows = names * clips  # row b*L + l
    return Batch(view(rows, 5), view(rows, 6), view(rows, 7), len(names))


@pytest.mark.parametrize("names", [[A, B], [A, B, C]], ids=["two layouts", "three layouts"])
def test_all_pairs_loss_is_the_mean_over_unlike_layouts(names):
    method, batch = make(names=names), all_pairs_batch(names, clips=3)
    q, k = by_hand(method, batch)
    out = method(batch)
    count, losses, right = len(names), [], []
    for clip in range(3):
        for i in range(count):
            for j in range(count):
                if i == j:
                    continue
                query, key = q[None, clip * count + i, None], k[clip * count + j, None]
                losses.append(kernels.info_nce(query, key, method.queue.keys, T).loss[0, 0])
                right.append(query[0, 0] @ key[0] > (method.queue.keys @ query[0, 0]).max())
    assert len(losses) == 3 * count * (count - 1)
    torch.testing.assert_close(out.loss, torch.stack(losses).mean())
    assert out.contrast_accuracy == torch.stack(right).float().mean()
    torch.testing.assert_close(out.keys, k)  # each key once, not once a pair


@pytest.mark.parametrize("mining", [False, True])
def test_all_pairs_loss_of_aimclr_is_the_mean_over_unlike_layouts(mining):
    method, batch = make(AimCLR, LAYOUTS), all_pairs_batch(LAYOUTS, clips=2)
    method.mining = mining
    embedder = copy.deepcopy(method.query)
    q, k = by_hand(method, batch)
    embedder(batch.query)
    queries = torch.stack([q, *embedder(batch.extreme, drop=True)])
    losses = []
    for clip in range(2):
        for i, j in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]:
            found = kernels.info_nce(
                queries[:, clip * 3 + i, None],
                k[clip * 3 + j, None],
                method.queue.keys,
                T,
                teacher=0,
                top_k=1,
                positives="mined" if mining else None,
            )
            losses.append(found.loss[0, 0] + found.distribution[1:, 0].mean())
    torch.testing.assert_close(method(batch).loss, torch.stack(losses).mean())


def test_a_saved_method_goes_on_where_it_stood(tmp_path):
    method, again = make(), make(queue_size=11)
    method.enqueue(method(a_batch()).keys)
    torch.save(method.state_dict(), tmp_path / "method.pt")
    again.load_state_dict(torch.load(tmp_path / "method.pt", weights_only=True))
    outs = [m(a_batch(seed=8)) for m in (method, again)]
    assert torch.equal(outs[0].loss, outs[1].loss)
    for m, out in zip((method, again), outs, strict=True):
        m.enqueue(out.keys)
    assert torch.equal(method.queue.keys, again.queue.keys)
