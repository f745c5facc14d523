"""An encoder with its preparation as one module of standard operators, which can be exported."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from msclr.data.streams import to_stream
from msclr.encoder import Encoder, Route
from msclr.errors import InputError
from msclr.export.folded import FoldedSTGCN
from msclr.export.preparation import GraphPreparation
from msclr.layouts import Layout


class Head(NamedTuple):
    """A linear classifier on the features of one layout, see :mod:`msclr.export.classifier`."""

    layout: str
    weight: Tensor  # (classes, D)
    bias: Tensor  # (classes,)
    classes: list[str]
    evaluation: str  # where it is from


class ExportModel(nn.Module):
    """Clips as a sensor gives them to features, one input and one output for each layout.

    forward: for each of ``layouts`` in turn clips (N, M, T, V, 3) float32; N, M and T may differ
    between them. Returns for each features (N, D) float32, and after those of a layout with a head
    its logits (N, classes). Preparation is inside, see :class:`GraphPreparation`; the features of a
    clip that cannot be used are NaN.
    """

    def __init__(self, encoder: Encoder, routes: list[Route], heads: dict[str, Head]) -> None:
        super().__init__()
        self.layouts = {route.layout.name: route.layout for route in routes}
        self.preparations = nn.ModuleDict(
            {
                name: GraphPreparation(encoder.preparation.of(name), x)
                for name, x in self.layouts.items()
            }
        )
        self.derived = nn.ModuleDict()
        self.known: dict[str, Layout] = {}  # of the clips as the encoder is given them
        for route in routes:
            name, passage = route.layout.name, route.passage
            self.known[name] = encoder.layouts[passage.target.name] if passage else route.layout
            if passage:
                self.derived[name] = _Derived(encoder, route)
        used = list(dict.fromkeys(layout.name for layout in self.known.values()))
        self.encoder = FoldedSTGCN(encoder.model, used)
        self.heads = nn.ModuleDict({name: _linear(head) for name, head in heads.items()})
        self.stream, self.planar = encoder.stream, encoder.preparation.planar
        every = encoder.model.bodies == "all"
        self.slots = {x: encoder.preparation.of(x).bodies if every else 0 for x in self.layouts}
        for name in used if every else ():
            self.register_buffer(f"nobody_{name}", self._nobody(encoder, name))

    def forward(self, *clips: Tensor) -> tuple[Tensor, ...]:
        out = []
        for name, of_layout in zip(self.layouts, clips, strict=True):
            x, bodies, usable = self.preparations[name](of_layout)
            if name in self.derived:
                x = self.derived[name](x, bodies)
            features = self._features(x, bodies, self.known[name], self.slots[name])
            features = torch.where(usable[:, None], features, torch.nan)
            out.append(features)
            if name in self.heads:
                out.append(self.heads[name](features))
        return tuple(out)

    def _features(self, x: Tensor, bodies: Tensor, layout: Layout, slots: int) -> Tensor:
        """Prepared clips x (N, M, T, V, 3), bodies (N, M) -> (N, D)."""
        tracks = to_stream(x, self.stream, layout, self.planar)
        tracks = tracks.flatten(0, 1).permute(0, 3, 1, 2)  # (N*M, 3, T, V)
        maps = self.encoder(tracks, layout.name).unflatten(0, (-1, bodies.shape[1]))  # (N, M, D)
        share = bodies.float()[..., None]
        total, count = (maps * share).sum(dim=1), share.sum(dim=1)
        if slots:  # an absent body counts as one at rest in the origin
            total = total + (slots - count) * getattr(self, f"nobody_{layout.name}")
            return total / slots
        return total / count.clamp(min=1)

    @torch.no_grad()
    def _nobody(self, encoder: Encoder, layout: str) -> Tensor:
        """The features (D,) of a body that is 0 throughout."""
        joints = encoder.layouts[layout].num_joints
        x = torch.zeros(1, 3, encoder.preparation.frames, joints, device=encoder.device)
        return self.encoder(x, layout)[0]


class _Derived(nn.Module):
    """Prepared clips under the layout that the encoder knows: `msclr.encoder.routes.derived`."""

    def __init__(self, encoder: Encoder, route: Route) -> None:
        super().__init__()
        how, passage = encoder.preparation, route.passage
        self.planar = how.planar
        centred = how.centred and not how.planar
        self.center = passage.target.center_index if centred else None
        self.seen_center = passage.source.center_index
        matrix = torch.from_numpy(passage.matrix)  # (V', V)
        self.of = [row.nonzero().flatten().tolist() for row in matrix]
        self.register_buffer("matrix", matrix)
        self.register_buffer("needs", (matrix != 0).double().T.contiguous())

    def forward(self, x: Tensor, bodies: Tensor) -> Tensor:
        """x (N, M, T, V, 3) float32, bodies (N, M) -> (N, M, T, V', 3) float32."""
        ever = (x != 0).any(dim=-1).any(dim=2)  # (N, M, V)
        if self.center is not None:
            column = torch.arange(x.shape[3], device=x.device) == self.seen_center
            ever = ever | (column & bodies[..., None])
        there = ((~ever).double() @ self.needs < 0.5)[:, :, None, :, None]  # (N, M, 1, V', 1)
        made = self.matrix @ x.double()
        if self.planar:
            scores = [x[..., of, 2].amin(dim=-1).double() for of in self.of]
            made = torch.cat([made[..., :2], torch.stack(scores, dim=-1)[..., None]], dim=-1)
        elif self.center is not None:
            count = there.double().sum(dim=3, keepdim=True).clamp(min=1)
            mean = torch.where(there, made, 0.0).sum(dim=3, keepdim=True) / count
            place = slice(self.center, self.center + 1)
            made = made - torch.where(there[:, :, :, place], made[:, :, :, place], mean)
        return torch.where(there, made, 0.0).float()


def _linear(head: Head) -> nn.Linear:
    linear = nn.Linear(head.weight.shape[1], len(head.weight)).requires_grad_(False)
    linear.weight.copy_(head.weight)
    linear.bias.copy_(head.bias)
    return linear


def routes_of(encoder: Encoder, layouts: list[str] | None) -> list[Route]:
    """How clips of each layout get to features; of all that the encoder knows where None.

    Raises InputError for one that is asked for twice, and one that takes an input norm fitted on
    the clips of a call: such a route cannot be written down.
    """
    routes = [encoder.route_of(name) for name in layouts or encoder.layouts]
    names = [route.layout.name for route in routes]
    for route in routes:
        if names.count(route.layout.name) > 1:
            raise InputError(f"layout {route.layout.name} is asked for twice; leave one out")
        if route.kind not in ("known", "derive"):
            raise InputError(
                f"{route.layout.name} by route {route.kind} has an input norm fitted on the clips "
                "of a call, which no file can hold; use route derive"
            )
    return routes
