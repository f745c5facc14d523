"""A run that begins with the encoder of another: ``init_from`` of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from msclr.config import Recipe
from msclr.errors import InputError
from msclr.files import read_tensors
from msclr.methods import METHODS
from msclr.nn import STGCN, load_pretrained
from msclr.nn.stgcn import belongs_to
from msclr.recipe_keys import DEFAULT_VALUES
from msclr.training.checkpoint import checkpoint_of


def load_initial(recipe: Recipe, method: nn.Module) -> str:
    """Give a method's encoders, and its heads where they fit, the weights of ``init_from``.

    That is the folder of a run, a checkpoint of it, or one of another project that
    :func:`msclr.nn.load_pretrained` reads. A method with an encoder for each stream takes that of
    the same stream. Projection heads are taken from a run of the same method, stream and
    ``embedding_dim``. The queue stays new, and so do sub-layouts and
    layouts that the source does not know.

    Returns:
        A line that says what was taken and what is new.

    Raises:
        InputError: no checkpoint there, one that cannot be read, or encoders of other widths.
    """
    state = read_tensors(checkpoint_of(recipe.init_from), "give a run's folder, or a checkpoint")
    per_stream, new = METHODS[recipe.method].per_stream, []
    embedders = dict(method.query.items()) if per_stream else {recipe.stream: method.query}
    for stream, embedder in embedders.items():
        source = load_pretrained(state, encoder=_name_of(state, stream, per_stream)).encoder
        new = _copy(source, embedder.encoder, f"init_from={recipe.init_from}")
    unfit = _take_heads(recipe, state, embedders)
    if hasattr(method, "key"):  # begins as a copy
        method.key.load_state_dict(method.query.state_dict())
    encoder, head = ("encoders", "heads") if per_stream else ("encoder", "head")
    taken = f"the {encoder}" if unfit else f"the {encoder} and the projection {head}"
    left = [f"the projection {head} ({unfit} there)"] if unfit else []
    left += ["the queue"] if getattr(method, "queue", None) is not None else []
    left += [f"the layout {name} (unknown there)" for name in new]
    news = f"; new: {', '.join(left)}" if left else ""
    return f"begins with {taken} of {recipe.init_from}{news}"


def _take_heads(recipe: Recipe, state: Any, embedders: Mapping[str, nn.Module]) -> str | None:
    """Copy the projection heads of a run; returns what of it is another, or None."""
    theirs = state.get("recipe") if isinstance(state, dict) else None
    if not isinstance(theirs, dict) or "method" not in state:
        return "none of msclr"
    theirs = DEFAULT_VALUES | theirs
    for key in ("method", "stream", "embedding_dim"):
        if theirs[key] != getattr(recipe, key):
            return f"{key} is {theirs[key]}"
    per_stream = METHODS[recipe.method].per_stream
    for stream, embedder in embedders.items():
        prefix = f"query.{stream}.head." if per_stream else "query.head."
        weights = state["method"].items()
        head = {k.removeprefix(prefix): v for k, v in weights if k.startswith(prefix)}
        embedder.head.load_state_dict(head)
    return None


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
        if not belongs_to(key, new):
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
