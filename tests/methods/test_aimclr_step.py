"""One MS-AimCLR step in float64 equals the independent padded oracle: loss, gradients, state."""

from __future__ import annotations

import pytest
import torch

from msclr import layouts
from msclr.methods import AimCLR, Batch, View
from msclr.nn import STGCN
from msclr.nn.stgcn import STRIDES
from tests.methods.padded_aimclr import Views, padded_step

A, B = "h36m_17", "kinectv1_20"  # 17 and 20 joints
CLIPS, FRAMES, BODIES = 5, 12, 2
TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


def make_method(seed: int, queue_size: int) -> AimCLR:
    torch.manual_seed(seed)
    encoder = STGCN([A, B], 4, 12, dropout=0.0, bodies="all", padding="paper")
    method = AimCLR(encoder, embedding_dim=8, queue_size=queue_size, key_momentum=0.9).double()
    for parameters in (method.query.parameters(), method.key.parameters()):
        for p in parameters:  # far from the initial values, where little would differ
            p.data = p.data + 0.2 * torch.randn_like(p)
    method.queue.enqueue(torch.zeros(queue_size - 2, 8).double())  # the write will wrap around
    method.queue.keys = torch.nn.functional.normalize(torch.randn(queue_size, 8).double(), dim=1)
    return method.train()


def clips(names: list[str]) -> list[torch.Tensor]:
    """One (C, T, V, M) clip for each name; the last has a second body that is absent."""
    made = [torch.randn(3, FRAMES, layouts.get(n).num_joints, BODIES).double() for n in names]
    made[-1][..., 1] = 0
    return made


def views_of(made: list[torch.Tensor], names: list[str]) -> dict[str, View]:
    return {
        name: View(
            torch.stack([x for x, n in zip(made, names, strict=True) if n == name]),
            torch.tensor([i for i, n in enumerate(names) if n == name]),
        )
        for name in sorted(set(names))
    }


def split_state(module: torch.nn.Module) -> tuple[dict, dict]:
    """The oracle's parameters and running statistics of an embedder, copied."""
    state = {k.removeprefix("encoder."): v.clone() for k, v in module.state_dict().items()}
    running = {k: v for k, v in state.items() if "running_" in k}
    return {k: v for k, v in state.items() if k not in running}, running


@pytest.mark.parametrize("mining", [False, True])
@pytest.mark.parametrize(
    ("query_layouts", "key_layouts"),
    [([A] * CLIPS, [B] * CLIPS), ([A, B, B, A, B], [B, A, B, B, A])],
    ids=["pair of the batch", "pair of each sample"],
)
def test_step_equals_the_padded_oracle(mining, query_layouts, key_layouts):
    method = make_method(seed=3, queue_size=13)
    method.mining = mining
    normal, extreme, keys = clips(query_layouts), clips(query_layouts), clips(key_layouts)
    query_state, running_q = split_state(method.query)
    key_state, running_k = split_state(method.key)
    expected = padded_step(
        query_state,
        key_state,
        running_q,
        running_k,
        {name: layouts.get(name).adjacency().double() for name in (A, B)},
        list(STRIDES),
        Views(normal, extreme, keys, query_layouts, key_layouts),
        method.queue.keys.clone(),
        method.queue.pointer,
        0.9,
        0.07,
        mining,
    )

    out = method(
        Batch(
            query=views_of(normal, query_layouts),
            key=views_of(keys, key_layouts),
            extreme=views_of(extreme, query_layouts),
        )
    )
    out.loss.backward()
    method.enqueue(out.keys)

    torch.testing.assert_close(out.loss.detach(), expected.loss, **TOLERANCE)
    compared = 0
    for name, parameter in method.query.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        wanted = expected.grads[name.removeprefix("encoder.")]
        torch.testing.assert_close(gradient, wanted, **TOLERANCE, msg=lambda m, n=name: f"{n}: {m}")
        compared += 1
    assert compared == len(expected.grads) - sum("num_batches" in k for k in expected.grads)
    new_key, new_running_k = split_state(method.key)
    for name, value in expected.new_key.items():
        if "num_batches" not in name:
            torch.testing.assert_close(new_key[name], value, **TOLERANCE)
    for new, wanted in (
        (new_running_k, expected.new_running_k),
        (split_state(method.query)[1], expected.new_running_q),
    ):
        for name, value in new.items():
            torch.testing.assert_close(value, wanted[name], **TOLERANCE, msg=name)
    torch.testing.assert_close(method.queue.keys, expected.new_queue, **TOLERANCE)
    assert method.queue.pointer == expected.new_pointer
