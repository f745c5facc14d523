"""Whether a checkpoint is of the run that is to go on from it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msclr.errors import InputError
from msclr.layouts import Layout
from msclr.method_keys import unread
from msclr.training.backend import check_kernels

if TYPE_CHECKING:
    from msclr.training.pretrain import Pretraining

_FREE_TO_CHANGE = ("data", "out", "device", "backend", "log_every", "checkpoint_every")
_FREE_TO_CHANGE += ("cuda_graph", "keep_every", "knn_every", "tsne_every", "steps", "epochs")


def require_same_run(
    run: Pretraining, state: dict[str, Any], theirs: dict[str, Any], path: Path
) -> None:
    """Raise InputError for a checkpoint of another recipe, of other data, joints or kernels.

    state: what the checkpoint holds. theirs: its recipe, whole.
    """
    mine = asdict(run.recipe)
    free = unread(run.recipe.method).union(_FREE_TO_CHANGE)
    unlike = [k for k in mine if k not in free and mine[k] != theirs[k]]
    if unlike:
        changes = ", ".join(f"{k}={theirs[k]!r} there, {mine[k]!r} here" for k in unlike)
        raise InputError(f"{path} is of another recipe: {changes}")
    if state["step"] > run.steps:
        raise InputError(
            f"{path} has done {state['step']} steps, more than the {run.steps} asked for; "
            "give more steps or epochs"
        )
    if state["data_checksums"] != run.dataset.about()["data_checksums"]:
        data = run.recipe.data
        named = " and ".join(data) if isinstance(data, list) else data
        raise InputError(f"{path} was trained on other data than {named} holds")
    for name, layout in run.dataset.layouts.items():  # derived, or drawn by the seed
        if Layout.from_dict(state["layouts"][name], str(path)).structure != layout.structure:
            raise InputError(
                f"{path} was trained on other joints or bones under the name {name}: begin again "
                "in another folder"
            )
    check_kernels(state, path)
