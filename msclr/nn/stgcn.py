"""ST-GCN for any joint layout: shared convolutions, graphs and input norms of a layout's own."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msclr import kernels
from msclr import layouts as layout_registry
from msclr.host import to_device
from msclr.kernels import PackedRows
from msclr.layouts import Layout
from msclr.nn.attention_drop import rescaling
from msclr.nn.block import STGCNBlock
from msclr.nn.fused import can_fuse, draw_seed
from msclr.nn.graph_conv import Graph
from msclr.nn.init import init_weights
from msclr.nn.norm import InputNorm
from msclr.nn.operands import Operands, advance, operands_of_pass
from msclr.nn.tracks import Tracks

STRIDES = (1, 1, 1, 1, 2, 1, 1, 2, 1, 1)


class _Tracks(NamedTuple):
    """The bodies of one layout that are computed."""

    x: Tensor  # (R, C, T, V)
    clip: np.ndarray | None  # (R,) which clip each belongs to
    clips: int
    of: Tracks | None = None  # in place of ``clip`` where some may be surplus

    def there(self) -> Tensor | None:
        return None if self.of is None else self.of.there()


class STGCN(nn.Module):
    """Spatial temporal graph convolutional network over one or several joint layouts.

    Ten blocks of widths w w w w 2w 2w 2w 4w 4w and ``hidden_dim``, w = ``hidden_channels``, the
    fifth and the eighth of stride 2; global mean over time, joints and bodies. Convolutions and
    their batch norms are shared by all layouts; input norm and edge importance are a layout's own.

    Args:
        layouts: names or :class:`~msclr.layouts.Layout` objects.
        hidden_channels: w.
        hidden_dim: length D of the features.
        in_channels: coordinates of a joint.
        dropout: in blocks 2 to 10.
        strategy: how links are split into partitions, see :meth:`Layout.adjacency`.
        bodies: "present" leaves out bodies that are all zero; "all" counts them as the papers do.
        padding: "none", statistics over real joints only; "paper" pads every layout with zeros
            to the largest and lets the padding into the shared batch statistics, for comparison.

    Source: Yan et al., ST-GCN (AAAI 2018); MS-CLR (arXiv:2508.14889) for the shared encoder.
    """

    def __init__(
        self,
        layouts: Sequence[str | Layout],
        hidden_channels: int = 16,
        hidden_dim: int = 256,
        *,
        in_channels: int = 3,
        dropout: float = 0.5,
        strategy: str = "spatial",
        bodies: str = "present",
        padding: str = "none",
    ):
        super().__init__()
        if bodies not in ("present", "all"):
            raise ValueError(f'bodies must be "present" or "all", got {bodies!r}')
        if padding not in ("none", "paper"):
            raise ValueError(f'padding must be "none" or "paper", got {padding!r}')
        self.in_channels, self.hidden_dim = in_channels, hidden_dim
        self.strategy, self.bodies, self.padding = strategy, bodies, padding
        self.process_group = None
        self.layouts: dict[str, Layout] = {}
        self.input_norm = nn.ModuleDict()
        self.edge_importance = nn.ModuleDict()
        w = hidden_channels
        widths = [w] * 4 + [2 * w] * 3 + [4 * w] * 2 + [hidden_dim]
        for layout in layouts:
            self.add_layout(layout)
        if not self.layouts:
            raise ValueError("layouts must name at least one layout, got none")
        partitions = next(iter(self.layouts.values())).adjacency(strategy).shape[0]
        self.blocks = nn.ModuleList(
            STGCNBlock(c_in, c_out, partitions, stride, dropout if i else 0.0, residual=i > 0)
            for i, (c_in, c_out, stride) in enumerate(
                zip([in_channels, *widths], widths, STRIDES, strict=False)
            )
        )
        self.apply(init_weights)

    def add_layout(self, layout: str | Layout) -> None:
        """Make the encoder take one more layout: importance 1, and a fresh input norm."""
        layout = layout_registry.get(layout) if isinstance(layout, str) else layout
        if layout.name in self.layouts:
            raise ValueError(f"layouts has {layout.name!r} twice")
        self.layouts[layout.name] = layout
        like = next(self.parameters(), torch.empty(0))  # an encoder may be on a device already
        adjacency = layout.adjacency(self.strategy).to(like)  # (K, V, V)
        self.register_buffer(f"adjacency_{layout.name}", adjacency, persistent=False)
        norm = InputNorm(self.in_channels * layout.num_joints).to(like).train(self.training)
        norm.process_group = self.process_group
        self.input_norm[layout.name] = norm
        self.edge_importance[layout.name] = nn.ParameterList(
            nn.Parameter(torch.ones_like(adjacency)) for _ in STRIDES
        )

    def drop_layout(self, name: str) -> None:
        """Forget one layout, and what of the encoder is its own."""
        del self.layouts[name], self.input_norm[name], self.edge_importance[name]
        delattr(self, f"adjacency_{name}")

    def forward(
        self,
        x: Tensor | Mapping[str, Tensor],
        layout: str | None = None,
        bodies: Tensor | Tracks | Mapping[str, Tensor | Tracks] | None = None,
        drop: bool = False,
    ):
        """Features of clips.

        Args:
            x: (N, C, T, V, M) of one layout, or a dict of them by layout name; N, T and M may
                differ between layouts.
            layout: the layout of a single x; not needed where the encoder knows one only.
            bodies: bool (N, M), or a dict of them: which bodies are present. Saves looking. Or
                :class:`~msclr.nn.tracks.Tracks` for all layouts: which are computed.
            drop: also return features after the attention-guided drop.

        Returns:
            features (N, hidden_dim), or a dict of them; with ``drop`` a pair (features, dropped).
        """
        single = torch.is_tensor(x)
        if single:
            layout = self._name_of(layout)
            x, bodies = {layout: x}, {} if bodies is None else {layout: bodies}
        x = {self._name_of(name): clips for name, clips in x.items()}
        bodies = {self._name_of(name): present for name, present in (bodies or {}).items()}
        tracks = {name: self._tracks(name, clips, bodies.get(name)) for name, clips in x.items()}
        pooled = kernels.drop_pool(self._feature_maps(tracks), drop)
        features = _over_bodies(pooled.mean, tracks)
        if not drop:
            return features[layout] if single else features
        factor = rescaling(pooled.counts, self.process_group).to(pooled.dropped)
        dropped = _over_bodies(pooled.dropped * factor, tracks)
        return (features[layout], dropped[layout]) if single else (features, dropped)

    def _name_of(self, layout: str | None) -> str:
        if layout is None:
            if len(self.layouts) > 1:
                raise ValueError(f"layout must be given: one of {', '.join(self.layouts)}")
            return next(iter(self.layouts))
        if layout in self.layouts:
            return layout
        name = layout_registry.get(layout).name  # an alias; unknown names end here
        if name not in self.layouts:
            raise ValueError(
                f"layout {name!r} is not one of the encoder's: {', '.join(self.layouts)}"
            )
        return name

    def _tracks(self, name: str, x: Tensor, bodies: Tensor | Tracks | None) -> _Tracks:
        joints = self.layouts[name].num_joints
        if x.dim() != 5 or x.shape[1] != self.in_channels or x.shape[3] != joints:
            raise ValueError(
                f"x of layout {name!r} must be (N, {self.in_channels}, T, {joints}, M), "
                f"got {tuple(x.shape)}"
            )
        clips, _, _, _, slots = x.shape
        if torch.is_tensor(bodies) and bodies.shape != (clips, slots):
            raise ValueError(f"bodies must be {(clips, slots)} as x, got {tuple(bodies.shape)}")
        x = x.permute(0, 4, 2, 3, 1).flatten(0, 1)  # (N*M, T, V, C)
        if isinstance(bodies, Tracks):
            taken = x.index_select(0, bodies.index)
            return _Tracks(taken.permute(0, 3, 1, 2), None, clips, bodies)
        if self.bodies == "all":
            index = np.arange(clips * slots)
        else:
            present = x.flatten(1).any(1) if bodies is None else bodies.flatten()
            index = np.flatnonzero(present.cpu().numpy())  # the host must know sizes
            if len(index) < len(x):
                x = x.index_select(0, to_device(index, x.device))
        return _Tracks(x.permute(0, 3, 1, 2), index // slots, clips)

    def _feature_maps(self, tracks: dict[str, _Tracks]) -> PackedRows:
        """The last block's output, real joints only."""
        x = {name: self.input_norm[name](t.x, t.there()) for name, t in tracks.items()}
        counts = [track.of.count for track in tracks.values() if track.of is not None]
        if counts and (self.padding == "paper" or len(counts) < len(x)):
            raise ValueError("bodies must be Tracks of all layouts, with padding='none', or none")
        if self.padding == "paper":
            return self._padded_feature_maps(x)
        rows, seed = PackedRows.of(list(x.values())), self._draw_seed()
        rows = rows._replace(counts=torch.cat(counts) if counts else None)
        fused = self._fused_pass(list(x), rows.rows)
        for i, block in enumerate(self.blocks):
            graphs = fused[i] if fused else [self._graph(name, i) for name in x]
            rows, _ = block(rows, graphs, seed, i)
        if fused:
            advance(self._norms(), fused[0].moments)
        return rows

    def _fused_pass(self, names: list[str], rows: Tensor) -> list[Operands] | None:
        """What each block needs to run as one operator; None where one of them cannot."""
        fixed = [getattr(self, f"adjacency_{name}") for name in names]
        importances = [
            [self.edge_importance[name][i] for name in names] for i in range(len(self.blocks))
        ]
        for block, learnt in zip(self.blocks, importances, strict=True):
            if not can_fuse(block, block.parts(), rows, [*fixed, *learnt]):
                return None
        return operands_of_pass(fixed, importances, self._norms())

    def _norms(self) -> list[list[nn.BatchNorm2d]]:
        return [block.parts().norms for block in self.blocks]

    def _draw_seed(self) -> Tensor | None:
        drops = self.training and any(block.dropout.p > 0 for block in self.blocks)
        return draw_seed() if drops else None

    def _graph(self, name: str, block: int) -> Graph:
        fixed = getattr(self, f"adjacency_{name}")
        return Graph(fixed * self.edge_importance[name][block], support=fixed != 0)

    def _padded_feature_maps(self, x: dict[str, Tensor]) -> PackedRows:
        """As the papers do: one batch, every layout padded with zeros to the largest."""
        largest = max(layout.num_joints for layout in self.layouts.values())
        device = next(iter(x.values())).device
        counts = torch.tensor([v.shape[3] for v in x.values()], device=device)
        sizes = torch.tensor([len(v) for v in x.values()], device=device)
        index = torch.arange(len(x), device=device).repeat_interleave(sizes)
        batch = torch.cat([F.pad(v, (0, largest - v.shape[3])) for v in x.values()])
        rows, seed = PackedRows.of([batch]), self._draw_seed()
        for i, block in enumerate(self.blocks):
            graphs = [self._graph(name, i) for name in x]
            pads = [(0, largest - len(g.adjacency[0])) * 2 for g in graphs]
            stacked = [
                torch.stack([F.pad(part, pad) for part, pad in zip(parts, pads, strict=True)])
                for parts in ([g.adjacency for g in graphs], [g.support for g in graphs])
            ]
            rows, _ = block(rows, [Graph(*stacked, index, counts)], seed, i)
        parts = rows.groups()[0].split([len(v) for v in x.values()])
        return PackedRows.of([p[..., : v.shape[3]] for p, v in zip(parts, x.values(), strict=True)])


def belongs_to(key: str, layouts: Collection[str]) -> bool:
    """Whether an entry of an encoder's state is one of these layouts' own."""
    return not set(layouts).isdisjoint(key.split("."))


def _over_bodies(of_tracks: Tensor, tracks: Mapping[str, _Tracks]) -> dict[str, Tensor]:
    """Means over each clip's bodies (N, D) by layout; 0 for a clip without any."""
    clips = [track.clips for track in tracks.values()]
    starts = [0, *itertools.accumulate(clips)]
    means = of_tracks.new_zeros(starts[-1], of_tracks.shape[1])
    known = [track.of for track in tracks.values() if track.of is not None]
    if known:
        index = torch.cat([of.clip + start for of, start in zip(known, starts, strict=False)])
        share = torch.cat([of.share for of in known]).to(of_tracks.dtype)
        means = means.index_add(0, index, of_tracks * share)
        return dict(zip(tracks, means.split(clips), strict=True))
    index = np.concatenate(
        [track.clip + start for track, start in zip(tracks.values(), starts, strict=False)]
    )
    share = 1.0 / np.bincount(index, minlength=starts[-1]).clip(min=1)  # (sum of N,)
    weights = to_device(share[index][:, None], of_tracks.device).to(of_tracks.dtype)
    index = to_device(index, of_tracks.device)
    means = means.index_add(0, index, of_tracks * weights)
    return dict(zip(tracks, means.split(clips), strict=True))
