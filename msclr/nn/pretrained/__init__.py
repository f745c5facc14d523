"""Read pretrained encoders: of this library's runs, and of the ST-GCN projects it follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

from msclr.errors import InputError
from msclr.files import read_tensors
from msclr.layouts import Layout
from msclr.nn.pretrained import pyskl, st_gcn
from msclr.nn.pretrained.build import build
from msclr.nn.pretrained.find import Found, encoder_in
from msclr.nn.pretrained.graph import as_layout, graph_of, layouts_of, without_padding
from msclr.nn.stgcn import STGCN, belongs_to
from msclr.paths import as_path


class Pretrained(NamedTuple):
    """An encoder, and the checkpoint's keys that it has no use for."""

    encoder: STGCN
    unused_keys: tuple[str, ...]


def load_pretrained(
    source: str | PathLike[str] | Mapping[str, Any],
    layouts: Sequence[str | Layout] | None = None,
    encoder: str | None = None,
) -> Pretrained:
    """The encoder of a checkpoint as :class:`~msclr.nn.STGCN`, in eval mode, on the CPU.

    Three kinds are read:

    - Checkpoints of this library's runs: the query encoder, with its layouts and options.
    - Weights of ST-GCN, AimCLR, CrosSCLR and MS-CLR by their key names ``st_gcn_networks.<i>.…``,
      ``data_bn.…``, ``edge_importance.<i>`` and ``A``. An encoder of several joint conventions has
      of each ``data_bn.<convention>.…``, ``edge_importance.<convention>.<i>`` and
      ``A_<convention>`` (a dot or an underscore before the name). They may be padded with zeros to
      the most joints; the padding is cut off, for which ``A_<convention>`` must be there. Features
      of ``data_bn`` are taken to be in the order joint * channels + channel.
    - The plain ST-GCN of pyskl and mmaction2 by ``gcn.<i>.gcn.…``, ``gcn.<i>.tcn.…`` and
      ``data_bn.…``: ``tcn_type="unit_tcn"``, ``gcn_conv_pos="pre"``, ``gcn_adaptive`` None or
      ``"importance"``, no ``gcn_with_res``. Their ST-GCN++ is another network.

    The weights may be in the file itself or in one dict within it, whatever its key
    (``state_dict``, ``model_state_dict``, ``ema``, …); of several, in the one of ``state_dict``,
    ``model_state_dict`` or ``model``. Anything may come before the names, such as ``encoder_q.``,
    ``backbone.`` or ``model.``, and ``module.`` and ``_orig_mod.`` anywhere. Of several encoders
    that of ``encoder_q.`` is taken.

    Widths and K follow from the shapes. The layout is that of the convention's name, or the known
    one whose adjacency is ``A``; a checkpoint without either needs ``layouts``, and without ``A``
    the partitions are taken to be those of ``Layout.adjacency("spatial")`` where K is 3. Weights in
    half precision become float32. The foreign encoders get ``bodies="all"``, as those projects
    count absent bodies, and so give their pooled features, those before the classifier. Strides
    and dropout are no part of a state_dict: strides of 2 at blocks 4 and 7 and dropout 0.5
    (pyskl: 0) are taken for granted.

    Args:
        source: a file, read with ``weights_only=True``, or what it holds.
        layouts: names or layouts, one for each the checkpoint has, in its order.
        encoder: which of several, by what comes before its names (``"encoder_q_motion"``); of a run
            of this library with an encoder for each stream, the stream.

    Returns:
        ``(encoder, unused_keys)``: among the unused are heads, queues and key encoders. Of a run
        with an encoder for each stream the joint one is taken; :func:`msclr.load` takes any.

    Raises:
        InputError: a file that cannot be read, keys or widths of another network, or a layout
            that is unknown, ambiguous or unlike ``A``.
    """
    state = _state_of(source)
    if isinstance(layouts, (str, Layout)):
        layouts = [layouts]
    if "format" in state and "method" in state and "layouts" in state:
        return _load_run(state, layouts, encoder)
    return _load_foreign(encoder_in(state, encoder), layouts)


def _state_of(source: str | PathLike[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        return source
    if not isinstance(source, (str, PathLike)):
        mend = "its state_dict()" if hasattr(source, "state_dict") else "one of these"
        raise InputError(
            f"source is a {type(source).__name__}, wanted the path of a checkpoint or a "
            f"state_dict: give {mend}"
        )
    path = as_path(source)
    state = read_tensors(path, "save the model's state_dict() alone")
    if not isinstance(state, Mapping):
        raise InputError(f"{path} holds a {type(state).__name__}, wanted a state_dict")
    return state


def _load_run(
    state: Mapping[str, Any], layouts: Sequence[str | Layout] | None, stream: str | None
) -> Pretrained:
    if state["format"] != 1:
        raise InputError(
            f"the checkpoint is of format {state['format']} of this library, this version reads 1"
        )
    prefix = "query.encoder."
    if not any(key.startswith(prefix) for key in state["method"]):
        prefix = f"query.{stream or 'joint'}.encoder."  # a run with an encoder for each stream
        stream = None
    if stream is not None or not any(key.startswith(prefix) for key in state["method"]):
        raise InputError(f"the checkpoint has no encoder of its own for {stream or prefix!r}")
    drawn = state.get("sub_layouts", {})  # they served the training
    used = [k for k in state["method"] if k.startswith(prefix) and not belongs_to(k, drawn)]
    weights = {key.removeprefix(prefix): state["method"][key] for key in used}
    own = [
        Layout.from_dict(fields, "the checkpoint")
        for name, fields in state["layouts"].items()
        if name not in drawn
    ]
    if layouts is not None and {as_layout(x) for x in layouts} != set(own):
        names = ", ".join(layout.name for layout in own)
        raise InputError(f"the checkpoint has the layouts {names}: leave layouts out")
    recipe = state.get("recipe", {})
    options = {name: recipe[name] for name in ("dropout", "bodies", "padding") if name in recipe}
    encoder = build(weights, own, options)
    unused = tuple(key for key in state["method"] if key not in used)
    return Pretrained(encoder, unused)


def _load_foreign(found: Found, given: Sequence[str | Layout] | None) -> Pretrained:
    own = found.weights
    names = pyskl.st_gcn_names(own) if found.of_pyskl else {name: name for name in own}
    theirs = {name: own[key] for key, name in names.items()}
    st_gcn.check_plan(theirs)
    graphs = {label: graph_of(theirs, label) for label in st_gcn.labels_in(theirs)}
    layouts, strategy = layouts_of([*graphs.values()], given)
    of_label = dict(zip(graphs, layouts, strict=True))
    ours = {name: st_gcn.our_key(name, of_label) for name in theirs}
    theirs = without_padding(theirs, graphs)
    weights = {key: theirs[name] for name, key in ours.items() if key}
    options = {"bodies": "all", "strategy": strategy, "dropout": 0.0 if found.of_pyskl else 0.5}
    encoder = build(weights, layouts, options)
    used = {
        found.keys[key] for key, name in names.items() if ours[name] or st_gcn.GRAPH.fullmatch(name)
    }
    return Pretrained(encoder, tuple(key for key in found.all_keys if key not in used))
