"""`msclr.load`: an encoder by its run, its checkpoint, or a checkpoint of another project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from msclr.data.store import open_store
from msclr.data.streams import STREAMS
from msclr.encoder.encoder import Encoder
from msclr.encoder.preparation import Preparation
from msclr.encoder.projects import preparation_of
from msclr.encoder.routes import check_route
from msclr.errors import InputError
from msclr.files import read_tensors
from msclr.layouts import Layout
from msclr.nn import load_pretrained
from msclr.paths import as_path

if TYPE_CHECKING:
    from msclr.evaluation import Run


def load(
    source: str | PathLike[str] | Mapping[str, Any],
    *,
    layouts: Sequence[str | Layout] | None = None,
    stream: str | None = None,
    encoder: str | None = None,
    route: str = "auto",
    device: str = "auto",
) -> Encoder:
    """A frozen encoder that embeds clips as a sensor gives them.

        encoder = msclr.load("ntu60_xview_actclr_joint_linear.pt")
        features = encoder.embed(clips, layout="kinectv1_20")  # (N, D) float32

    Args:
        source: the folder of a run, a checkpoint in it, or a checkpoint (or state_dict) of another
            project that :func:`msclr.nn.load_pretrained` reads.
        layouts: of another project's checkpoint, where it does not say.
        stream: "joint" (if None), "motion" or "bone": of another project's checkpoint, or which
            encoder of a run of CrosSCLR.
        encoder: which of several in another project's checkpoint: what comes before its names, such
            as "encoder_q_motion", which is of the stream that the name ends in.
        route: what becomes of layouts that the encoder does not know, see :meth:`Encoder.embed`.
        device: "auto", "cpu" or "cuda".

    The preparation is that of the run's training data, or the one that the other project uses
    (docs/embedding.md).

    Raises:
        InputError: no run or checkpoint there, or one that cannot be read; a stream or layouts for
            a run, which has its own; an unknown route or device.
    """
    check_route(route)
    if not isinstance(source, Mapping):
        from msclr.training.checkpoint import checkpoint_of

        path = as_path(source)
        if path.is_dir():
            return _of_run(path, layouts, stream, encoder, route, device)
        state = read_tensors(checkpoint_of(path), "give a run's folder, or a checkpoint")
        if not isinstance(state, Mapping):
            raise InputError(f"{path} holds a {type(state).__name__}, wanted a checkpoint")
        if "format" in state and "method" in state:
            return _of_run(path, layouts, stream, encoder, route, device)
        return _of_project(state, str(path), layouts, stream, encoder, route, device)
    if "format" in source and "method" in source:
        raise InputError("this is what a checkpoint of a run holds; give its path instead")
    return _of_project(source, "state_dict", layouts, stream, encoder, route, device)


def _of_run(path, layouts, stream: str | None, encoder, route: str, device: str) -> Encoder:
    from msclr.evaluation.run import open_run

    run = open_run(path, device=device)
    if run.encoders and stream is not None:
        run, stream = run.of_stream(stream), None
    for name, given in (("layouts", layouts), ("stream", stream), ("encoder", encoder)):
        if given is not None:
            raise InputError(f"{path} is of a run, which has its own {name}: leave {name} out")
    return encoder_of(run, route)


def _of_project(
    state, name: str, layouts, stream: str | None, encoder: str | None, route: str, device: str
) -> Encoder:
    from msclr.training.pretrain import pick_device

    named = (encoder or "").rpartition("_")[2]
    stream = stream or (named if named in STREAMS else "joint")
    if stream not in STREAMS:
        raise InputError(f"stream is {stream!r}; choose one of {', '.join(STREAMS)}")
    model = load_pretrained(state, layouts, encoder).encoder
    preparation = preparation_of(state, model)
    # Those projects average over the place of an absent body too, which adds the same to the
    # features of all clips of one body and halves the rest; without it a classifier learns better.
    model.bodies = "present"
    model = model.float().to(pick_device(device))
    return Encoder(model, preparation, stream, route, name)


def encoder_of(run: Run, route: str = "auto") -> Encoder:
    """The encoder of an open run, with the preparation of its training data.

    Raises InputError for a run of an older version whose data are no longer there: its checkpoint
    does not say how they were prepared.
    """
    return Encoder(run.encoder, _preparation(run), run.recipe.stream, route, str(run.folder))


def _preparation(run: Run) -> Preparation:
    frames, bodies, frame, size_by = run.frames, run.body_slots, run.frame, run.size_by
    if frames is None:
        try:
            store = open_store(run.recipe.data, verify=False)
        except InputError:
            store = None
        if store is None or run.checksums not in ({}, store.meta["checksums"]):
            raise InputError(
                f"the checkpoint in {run.folder} is of an older version and does not say how its "
                f"data were prepared, and {run.recipe.data} does not hold them any more; put them "
                "back there"
            )
        frames, bodies, frame, size_by = store.frames, store.bodies, store.frame, store.size_by
    extents = [x for x in run.size.values() if x] if size_by == "none" else []
    return Preparation(
        frames,
        bodies,
        frame,
        size_by,
        run.coordinates or "xyz",
        extent=max(extents, default=None),
        bodies_by_layout=_bodies_by_layout(run),
    )


def _bodies_by_layout(run: Run) -> dict[str, int]:
    """The most bodies under each layout, of a run on several data sets."""
    found: dict[str, int] = {}
    for part in run.parts:
        for layout in part["layouts"]:
            found[layout] = max(part["bodies"], found.get(layout, 0))
    return found if len(set(found.values())) > 1 else {}
