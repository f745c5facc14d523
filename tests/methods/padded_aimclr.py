"""One MS-AimCLR training step in plain float64 PyTorch, zero-padded as the papers do it.

The yardstick for `padding="paper"`, `bodies="all"`, dropout 0. It is written from the formulas
alone, imports nothing of msclr, and prefers loops to speed. Every clip has its own query layout and
key layout; each encoder zero-pads all its tracks (one body of one clip) to V, the joint count of
its largest layout, and runs them as a single batch.

Letters: B clips, M bodies, N = B*M tracks in the order clip*M + body, C channels, T frames,
V padded joints, J real joints of a track, K partitions, D features, E embedding, Q queue rows.

Sources: AimCLR (AAAI 2022), ST-GCN (AAAI 2018), MS-CLR (arXiv:2508.14889)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, softmax

from tests.methods.padded_encoder import TEMPORAL_TAPS, Encoder, State, feature_maps, to_double

DROP_THRESHOLD = 0.7


@dataclass
class Views:
    """A batch, clip by clip: the extreme view has the layout of the normal one."""

    normal: list[Tensor]  # B of (3, T, J, M)
    extreme: list[Tensor]  # B of (3, T, J, M)
    keys: list[Tensor]  # B of (3, T, J, M)
    query_layouts: list[str]
    key_layouts: list[str]


@dataclass
class StepResult:
    """What one step leaves behind; every tensor is detached."""

    loss: Tensor  # ()
    grads: State  # one entry per query parameter, zeros where the step does not use it
    new_key: State
    new_queue: Tensor  # (Q, E)
    new_pointer: int
    new_running_q: State
    new_running_k: State
    q: Tensor  # (B, E)
    e: Tensor  # (B, E)
    d: Tensor  # (B, E)
    k: Tensor  # (B, E)


def padded_step(
    query: State,
    key: State,
    running_q: State,
    running_k: State,
    adjacency: dict[str, Tensor],
    strides: Sequence[int],
    views: Views,
    queue: Tensor,
    pointer: int,
    momentum: float,
    temperature: float,
    mining: bool,
) -> StepResult:
    """One step up to, and without, the optimiser's update of the query encoder.

    Nothing passed in is changed. The order: momentum update of the key encoder, embeddings, loss
    against the queue as it is, then the queue takes the keys.
    """
    query = {name: value.detach().double().requires_grad_() for name, value in query.items()}
    with torch.no_grad():
        new_key = {
            name: momentum * key[name].double() + (1 - momentum) * query[name] for name in query
        }
    query_encoder = Encoder(query, to_double(running_q), adjacency, strides, train=True)
    key_encoder = Encoder(new_key, to_double(running_k), adjacency, strides, train=True)
    queue = queue.detach().double()

    clips = len(views.normal)

    normal = feature_maps(query_encoder, views.normal, views.query_layouts)
    q = embed(query_encoder, normal, clips)
    extreme = feature_maps(query_encoder, views.extreme, views.query_layouts)
    e = embed(query_encoder, extreme, clips)
    d = embed(query_encoder, attention_guided_drop(extreme), clips)
    with torch.no_grad():
        k = embed(key_encoder, feature_maps(key_encoder, views.keys, views.key_layouts), clips)

    loss = contrast_loss(q, e, d, k, queue, temperature, mining)
    grads = torch.autograd.grad(loss, list(query.values()), allow_unused=True)
    new_queue, new_pointer = enqueue(queue, pointer, k)
    return StepResult(
        loss=loss.detach(),
        grads={
            name: torch.zeros_like(value) if grad is None else grad
            for (name, value), grad in zip(query.items(), grads, strict=True)
        },
        new_key=new_key,
        new_queue=new_queue,
        new_pointer=new_pointer,
        new_running_q=query_encoder.running,
        new_running_k=key_encoder.running,
        q=q.detach(),
        e=e.detach(),
        d=d.detach(),
        k=k,
    )


def plain_padded_features(
    state: State,
    running: State,
    adjacency: dict[str, Tensor],
    strides: Sequence[int],
    x: Tensor,
    layout: str,
) -> tuple[Tensor, Tensor]:
    """Features in eval mode (running statistics) of clips x (B, 3, T, J, M) of one layout.

    Returns the pooled features (B, D), before the head, and the real joints of the last block's
    output (B*M, D, T', J).
    """
    encoder = Encoder(to_double(state), to_double(running), adjacency, strides, train=False)
    with torch.no_grad():
        maps = feature_maps(encoder, list(x), [layout] * len(x))
        return pool(maps, clips=len(x)), torch.stack(maps)


# --------------------------------------------------------- after the blocks: real joints only


def attention_guided_drop(maps: list[Tensor]) -> list[Tensor]:
    """Drops the joints, then the cells, of the most unusual values; N of (D, T, J) each way.

    s = sigmoid( (x - m)^2 / (4 (var + 1e-4)) + 0.5 ), m and the unbiased var per track and channel
    over (T, J). Out go joints whose mean s over (D, T) reaches 0.7, and cells whose own s does;
    the rest is rescaled by total/kept of either kind, counted over the whole batch. Masks and
    factors are constants to autograd.
    """
    joint_masks, cell_masks = [], []
    for x in maps:
        x = x.detach()
        squared = (x - x.mean((1, 2), keepdim=True)) ** 2
        var = squared.sum((1, 2), keepdim=True) / (x.shape[1] * x.shape[2] - 1)
        s = torch.sigmoid(squared / (4 * (var + 1e-4)) + 0.5)  # (D, T, J)
        joint_masks.append((s.mean((0, 1)) < DROP_THRESHOLD).double())  # (J,)
        cell_masks.append((s < DROP_THRESHOLD).double())  # (D, T, J)
    joint_factor, cell_factor = _total_over_kept(joint_masks), _total_over_kept(cell_masks)
    return [
        x * joints * joint_factor * cells * cell_factor
        for x, joints, cells in zip(maps, joint_masks, cell_masks, strict=True)
    ]


def _total_over_kept(masks: list[Tensor]) -> float:
    return sum(mask.numel() for mask in masks) / sum(mask.sum().item() for mask in masks)


def pool(maps: list[Tensor], clips: int) -> Tensor:
    """Mean over time and real joints, then over the bodies of a clip: (B, D)."""
    tracks = torch.stack([x.mean((1, 2)) for x in maps])  # (B*M, D)
    return tracks.reshape(clips, -1, tracks.shape[1]).mean(1)


def embed(encoder: Encoder, maps: list[Tensor], clips: int) -> Tensor:
    """Pooled features through the head, L2-normalised: (B, E)."""
    state = encoder.state
    x = pool(maps, clips)
    x = (x @ state["head.0.weight"].T + state["head.0.bias"]).relu()
    x = x @ state["head.2.weight"].T + state["head.2.bias"]
    return x / (x**2).sum(1, keepdim=True).sqrt().clamp(min=1e-12)


# ------------------------------------------------------------------------------- the contrast


def contrast_loss(
    q: Tensor, e: Tensor, d: Tensor, k: Tensor, queue: Tensor, temperature: float, mining: bool
) -> Tensor:
    """InfoNCE of q plus 1/2 ( D(e) + D(d) ), means over the batch.

    InfoNCE is the mean of -log softmax over the positives: column 0 (the key) and, with mining,
    the set of the queue rows nearest to q, e and d.
    """
    log_q, log_e, log_d = (
        log_softmax(contrast_logits(x, k, queue, temperature), dim=1) for x in (q, e, d)
    )
    info_nce = 0.0
    for clip in range(len(q)):
        positives = {0}
        if mining:
            positives |= {1 + int((queue @ x[clip]).argmax()) for x in (q, e, d)}
        info_nce = info_nce - sum(log_q[clip, j] for j in positives) / len(positives)
    info_nce = info_nce / len(q)

    p = softmax(contrast_logits(q, k, queue, temperature), dim=1).detach()
    return info_nce - 0.5 * ((p * log_e).sum(1).mean() + (p * log_d).sum(1).mean())


def contrast_logits(x: Tensor, k: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """[x.k, x.queue] / temperature: (B, 1 + Q)."""
    return torch.cat([(x * k).sum(1, keepdim=True), x @ queue.T], dim=1) / temperature


def enqueue(queue: Tensor, pointer: int, k: Tensor) -> tuple[Tensor, int]:
    """The queue with the keys in rows pointer, pointer + 1, ... (mod Q), and the next pointer."""
    queue = queue.clone()
    for row, embedding in enumerate(k):
        queue[(pointer + row) % len(queue)] = embedding
    return queue, (pointer + len(k)) % len(queue)


# -------------------------------------------------------------------------- states for tests


def random_state(
    layouts: dict[str, Tensor],
    channels: Sequence[int],
    strides: Sequence[int],
    dim: int,
    generator: torch.Generator,
) -> State:
    """Random parameters of an encoder with coordinates in, blocks of `channels`, head to `dim`.

    `layouts` are the adjacencies (K, J, J) by name, all with the same K. Scales keep activations
    near 1; no bias is 0 and no weight of a norm or an edge is exactly 1, so each one matters.
    """
    partitions = next(iter(layouts.values())).shape[0]

    def normal(*shape: int, mean: float = 0.0, std: float = 0.2) -> Tensor:
        return mean + std * torch.randn(*shape, dtype=torch.float64, generator=generator)

    state: State = {}

    def add_linear(name: str, *shape: int) -> None:
        state[f"{name}.weight"] = normal(*shape, std=1 / math.sqrt(math.prod(shape[1:])))
        state[f"{name}.bias"] = normal(shape[0])

    def add_norm(name: str, width: int) -> None:
        state[f"{name}.weight"] = normal(width, mean=1.0)
        state[f"{name}.bias"] = normal(width)

    for layout, adjacency in layouts.items():
        add_norm(f"input_norm.{layout}", 3 * adjacency.shape[-1])
    before = 3
    for i, (width, stride) in enumerate(zip(channels, strides, strict=True)):
        add_linear(f"blocks.{i}.gcn.conv", partitions * width, before, 1, 1)
        add_norm(f"blocks.{i}.gcn_norm", width)
        add_linear(f"blocks.{i}.tcn", width, width, TEMPORAL_TAPS, 1)
        add_norm(f"blocks.{i}.tcn_norm", width)
        if i > 0 and (stride != 1 or before != width):
            add_linear(f"blocks.{i}.residual.conv", width, before, 1, 1)
            add_norm(f"blocks.{i}.residual.norm", width)
        for layout, adjacency in layouts.items():
            state[f"edge_importance.{layout}.{i}"] = normal(*adjacency.shape, mean=1.0)
        before = width
    add_linear("head.0", before, before)
    add_linear("head.2", dim, before)
    return state


def fresh_running(state: State) -> State:
    """The running statistics a new encoder starts with: means 0, variances 1."""
    running: State = {}
    for name, value in state.items():
        owner, _, kind = name.rpartition(".")
        if kind == "weight" and (owner.startswith("input_norm.") or owner.endswith("norm")):
            running[f"{owner}.running_mean"] = torch.zeros_like(value)
            running[f"{owner}.running_var"] = torch.ones_like(value)
    return running
