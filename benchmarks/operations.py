"""How many multiplications and additions the matrix products of an operator take.

Of PyTorch's operators PyTorch itself knows. Ours are counted as dense products: a graph convolution
as the product with all partitions of its weight, without the aggregation over neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from torch.utils.flop_counter import flop_registry


def operations(func: Any, args: tuple, kwargs: Mapping[str, Any], out: Any) -> int:
    """Of one call of an operator, from its arguments and results; 0 where it multiplies none."""
    if ours := OURS.get(func._schema.name):
        names = (argument.name for argument in func._schema.arguments)
        return int(ours(dict(zip(names, args, strict=False)) | dict(kwargs), out))
    theirs = flop_registry.get(func.overloadpacket)
    return int(theirs(*args, **kwargs, out_val=out)) if theirs else 0


def _graph_conv(a: dict[str, Any], out: Any) -> int:
    samples, _, frames, joints = a["x"].shape
    return 2 * samples * frames * joints * prod(a["weight"].shape)


def _graph_conv_backward(a: dict[str, Any], out: Any) -> int:
    wanted = a["want_x"] + (a["want_weight"] or a["want_bias"]) + a["want_adjacency"]
    return wanted * _graph_conv(a, out)


def _rows_forward(a: dict[str, Any], out: Any) -> int:
    return 2 * len(out[0]) * prod(a["weight"].shape)


def _rows_backward(a: dict[str, Any], out: Any) -> int:
    wanted = sum(bool(value) for name, value in a.items() if name.startswith("want_"))
    return wanted * 2 * len(a["d"]) * prod(a["weight"].shape)


def _info_nce(a: dict[str, Any], out: Any) -> int:
    """The similarities, and the mean of the bank's rows by their weights."""
    return 4 * prod(a["queries"].shape) * (1 + (0 if a["bank"] is None else len(a["bank"])))


def _info_nce_backward(a: dict[str, Any], out: Any) -> int:
    """Only a gradient of the bank multiplies again."""
    return _info_nce(a, out) if a["want_bank"] else 0


OURS: dict[str, Callable[[dict[str, Any], Any], int]] = {
    "msclr::graph_conv": _graph_conv,
    "msclr::graph_conv_backward": _graph_conv_backward,
    "msclr::block_graph_conv": _rows_forward,
    "msclr::block_graph_conv_backward": _rows_backward,
    "msclr::temporal_conv": _rows_forward,
    "msclr::temporal_conv_backward": _rows_backward,
    "msclr::info_nce": _info_nce,
    "msclr::info_nce_backward": _info_nce_backward,
}
