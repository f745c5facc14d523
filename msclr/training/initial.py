"""A run that begins with the encoder of another: ``init_from`` of a recipe."""

from __future__ import annotations

import logging

from torch import nn

from msclr.config import Recipe
from msclr.errors import InputError
from msclr.files import read_tensors
from msclr.methods import METHODS
from msclr.nn import STGCN, load_pretrained
from msclr.paths import as_path

_CHECKPOINT = "checkpoint.pt"

logger = logging.getLogger(__name__)


def load_initial(recipe: Recipe, method: nn.Module) -> None:
    """Give a method's encoders the weights of ``init_from``; heads and queue stay new.

    That is the folder of a run, a checkpoint of it, or one of another project that
    :func:`msclr.nn.load_pretrained` reads. A method with an encoder for each stream takes that of
    the same stream. Layouts that the source does not know stay newly initialised, with a warning.

    Raises:
        InputError: no checkpoint there, one that cannot be read, or encoders of other widths.
    """
    path = as_path(recipe.init_from)
    path = path / _CHECKPOINT if path.is_dir() else path
    state = read_tensors(path, "give a run's folder, or a checkpoint")
    per_stream = METHODS[recipe.method].per_stream
    for stream in method.query if per_stream else [recipe.stream]:
        encoder = method.query[stream].encoder if per_stream else method.query.encoder
        source = load_pretrained(state, encoder=_name_of(state, stream, per_stream)).encoder
        if new := _copy(source, encoder, f"init_from={recipe.init_from}"):
            logger.warning("%s knows no %s: newly initialised", recipe.init_from, ", ".join(new))
    if hasattr(method, "key"):  # begins as a copy
        method.key.load_state_dict(method.query.state_dict())


def _name_of(state, stream: str, needed: bool) -> str | None:
    """The stream, where the checkpoint is of a run with an encoder for each."""
    weights = state.get("method", {}) if isinstance(state, dict) else {}
    has = f"query.{stream}.encoder."
    if any(isinstance(key, str) and key.startswith(has) for key in weights):
        return stream
    if needed and weights:
        raise InputError(
            f"init_from has no encoder of stream {stream}, which a run of crossclr wants one of "
            "each; give a run of crossclr"
        )
    return {"joint": "encoder_q"}.get(stream, f"encoder_q_{stream}") if needed else None


def _copy(source: STGCN, target: STGCN, what: str) -> list[str]:
    """Weights of one encoder into another; returns the layouts of the latter that it lacks."""
    shared = [name for name in target.layouts if name in source.layouts]
    new = [name for name in target.layouts if name not in source.layouts]
    if not shared:
        raise InputError(
            f"{what} knows none of the layouts {', '.join(target.layouts)}, only "
            f"{', '.join(source.layouts)}"
        )
    theirs, mine = source.state_dict(), target.state_dict()
    for key, value in mine.items():
        if not any(name in key.split(".") for name in new):
            given = theirs.get(key)
            if given is None or given.shape != value.shape:
                had = "nothing" if given is None else tuple(given.shape)
                raise InputError(
                    f"{what} has another encoder: {key} is {had} there and {tuple(value.shape)} "
                    "here; give the same hidden_channels and hidden_dim"
                )
            mine[key] = given
    target.load_state_dict(mine)
    return new
