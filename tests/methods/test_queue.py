"""The queue of keys: the newest stay, in place, through any batch sizes and a round trip."""

from __future__ import annotations

import pytest
import torch

from msclr.methods.queue import Queue


def keys(first: int, count: int, dim: int = 3) -> torch.Tensor:
    """Keys that carry their number: key n is (n, n, n)."""
    return torch.arange(first, first + count).float()[:, None].expand(count, dim)


def fill(queue: Queue, sizes: list[int]) -> int:
    """Enqueue batches of these sizes; returns how many keys went in."""
    total = 0
    for size in sizes:
        queue.enqueue(keys(total, size))
        total += size
    return total


def test_starts_as_unit_vectors_that_differ():
    queue = Queue(50, 4)
    assert queue.keys.shape == (50, 4)
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(50))
    assert len(queue.keys.unique(dim=0)) == 50
    assert not queue.keys.requires_grad


@pytest.mark.parametrize(
    "sizes", [[1, 2, 4], [7], [3, 3, 3, 3], [5, 6, 2, 5], [0, 4, 0, 6], [6, 1]]
)
def test_holds_the_newest_keys_of_any_batches(sizes):
    queue = Queue(7, 3)
    start = queue.keys.clone()
    ring, place = start.clone(), 0
    total = 0
    for size in sizes:  # one by one, as a ring of seven places
        for number in range(total, total + size):
            ring[place] = number
            place = (place + 1) % 7
        total += size
    assert fill(queue, sizes) == total
    assert torch.equal(queue.keys, ring)
    assert queue.pointer == place


@pytest.mark.parametrize("batch", [8, 14, 15, 23])
@pytest.mark.parametrize("before", [0, 5])
def test_of_a_batch_longer_than_the_queue_the_last_keys_stay(batch, before):
    queue = Queue(7, 3)
    total = fill(queue, [before, batch])
    for number in range(total - 7, total):
        assert (queue.keys[number % 7] == number).all()
    assert queue.pointer == total % 7


def test_is_written_in_place():
    queue = Queue(5, 3)
    address = queue.keys.data_ptr()
    fill(queue, [3, 4, 9, 5])
    assert queue.keys.data_ptr() == address


def test_takes_keys_of_another_type_and_with_a_gradient():
    queue = Queue(4, 3)
    queue.enqueue(keys(1, 2).to(torch.bfloat16).requires_grad_())
    assert queue.keys.dtype == torch.float32
    assert not queue.keys.requires_grad
    assert queue.keys[:2, 0].tolist() == [1, 2]


def test_bfloat16_rounds_each_key_once():
    queue = Queue(3, 4, torch.bfloat16)
    torch.testing.assert_close(queue.keys.float().norm(dim=1), torch.ones(3), atol=4e-3, rtol=0)
    exact = torch.randn(2, 4)
    queue.enqueue(exact)
    assert queue.keys.dtype == torch.bfloat16
    assert torch.equal(queue.keys[:2], exact.to(torch.bfloat16))


def test_a_saved_queue_goes_on_where_it_stood(tmp_path):
    queue, again = Queue(5, 3), Queue(5, 3)
    fill(queue, [3, 4])
    torch.save(queue.state_dict(), tmp_path / "queue.pt")
    again.load_state_dict(torch.load(tmp_path / "queue.pt", weights_only=True))
    assert (again.pointer, queue.pointer) == (2, 2)
    for q in (queue, again):
        q.enqueue(keys(100, 4))
    assert torch.equal(again.keys, queue.keys)
    assert again.keys[:, 0].tolist() == [103, 6, 100, 101, 102]


def test_needs_a_place_for_a_key():
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        Queue(0, 3)
