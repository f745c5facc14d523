"""`Encoder`: from clips as a sensor gives them to features."""

from __future__ import annotations

import logging
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msclr import layouts as layout_registry
from msclr.encoder.attach import attach, fit_input_norm
from msclr.encoder.preparation import Preparation, check_clips
from msclr.encoder.routes import Route, check_route, choose_route, features_by
from msclr.errors import InputError
from msclr.layouts import Layout
from msclr.nn import STGCN

logger = logging.getLogger(__name__)


class Encoder:
    """A frozen encoder and the preparation of the data that it was trained on; see `msclr.load`.

    Attributes:
        model: the :class:`~msclr.nn.STGCN`, in eval mode.
        layouts: {name: layout} that it was trained on.
        preparation: the steps and constants that its training data were prepared with.
        stream: "joint", "motion" or "bone".
        route: how `embed` takes other layouts where its own `route` is not given.
        source: the file or folder that it is from.
    """

    def __init__(
        self,
        model: STGCN,
        preparation: Preparation,
        stream: str = "joint",
        route: str = "auto",
        source: str = "",
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.layouts = dict(model.layouts)
        self.preparation, self.stream, self.source = preparation, stream, source
        self.route = check_route(route)
        self._told: set[str] = set()

    def __repr__(self) -> str:
        return (
            f"Encoder({self.source!r}, {', '.join(self.layouts)}, {self.stream} stream, "
            f"{self.dim} features)"
        )

    @property
    def dim(self) -> int:
        """D, the length of the features."""
        return self.model.hidden_dim

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def embed(
        self,
        clips: Any,
        layout: str | Layout | None = None,
        route: str | None = None,
        mirror: bool = False,
    ) -> Tensor:
        """The features of clips, (N, D) float32 on the CPU.

        Args:
            clips: a clip (T, V, 3), or (M, T, V, 3) of M bodies, of any length, NumPy or torch; or
                N of them in a list, or as (N, M, T, V, 3). Metres, x, y, z; of an encoder for clips
                of two dimensions x, y and a score. A joint that is NaN, infinite or 0, 0, 0 is
                missing, and interpolated over time.
            layout: of the clips: a name, a `Layout`, or the path of a .toml file. None: the one
                that the encoder knows, if it knows one only.
            route: for a layout that it does not know: "derive", the clips are made into the known
                layout that loses least; "attach", the layout gets an input norm fitted on the clips
                of this call, and the edge importance of its counterparts; "both", the mean of both
                features; "auto", whichever measured best (docs/embedding.md). None: the encoder's.
            mirror: take the mean of the features of each clip and of its mirror image, which left-
                and right-handed people share.

        Clips are prepared as the training data were, each by itself. On a CPU a clip has the same
        features to the last bit whatever clips come with it, unless the layout is attached.

        Raises:
            InputError: an unknown layout, another number of joints, a clip without a frame or a
                joint, joints of two coordinates for an encoder of three, another unit, a mirror
                image of a layout without left-right pairs.
        """
        way = self.route_of(layout, route, mirror)
        clips = check_clips(clips, way.layout, self.preparation.coordinates)
        self.tell(way)
        if not clips:
            return torch.empty(0, self.dim)
        return self.embed_prepared(
            *self.preparation.of(way.layout.name).prepare(clips, way.layout), way
        )

    def tell(self, route: Route) -> None:
        """Log a route to a layout that the encoder does not know, once."""
        for line in () if route.kind == "known" else (*route.notes, route.line):
            if line not in self._told:
                self._told.add(line)
                logger.warning(line)

    @torch.no_grad()
    def embed_prepared(self, x: Tensor, bodies: Tensor, route: Route) -> Tensor:
        """Features (N, D) of clips that are prepared already: x (N, M, T, V, 3), bodies (N, M)."""
        planar, x, bodies = self.preparation.planar, x.to(self.device), bodies.to(self.device)
        if route.kind in ("attach", "both"):
            attach(self.model, route.passage)
            name = route.layout.name
            fit_input_norm(self.model, name, [(x, bodies)], self.stream, planar)
        how = {"planar": planar, "centred": self.preparation.centred}
        return features_by(route, self.model, x, bodies, self.stream, **how).cpu()

    def route_of(
        self,
        layout: str | PathLike[str] | Layout | None = None,
        route: str | None = None,
        mirror: bool = False,
    ) -> Route:
        """How clips of a layout get to features; its `line` says so, and what is lost.

        Raises InputError as `embed` does.
        """
        return choose_route(self.layouts, self._layout(layout), route or self.route, mirror)

    def _layout(self, layout: str | PathLike[str] | Layout | None) -> Layout:
        if layout is None:
            if len(self.layouts) > 1:
                raise InputError(
                    f"which layout are the clips of? The encoder knows {', '.join(self.layouts)}; "
                    "name one of these, or another"
                )
            return next(iter(self.layouts.values()))
        if isinstance(layout, Layout):
            return layout
        if str(layout) in self.layouts:
            return self.layouts[str(layout)]
        if Path(layout).suffix == ".toml":
            return layout_registry.load(layout)
        return layout_registry.get(layout)
