"""Every variant of a Triton program that arguments can reach compiles for GPUs that are not here.

The usual ones are in the files of their operators; these are the others: float64, the tf32 that
PyTorch can be set to use, float16 next to bfloat16, the widest embeddings, the longest lists.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module

import pytest
import torch

from tests.kernels.contract import CONTRACTS, arguments_of

pytest.importorskip("triton")
from tests.kernels.ahead_of_time import SHARED_BYTES, compile_launches  # noqa: E402
from tests.kernels.interpreter import compiled  # noqa: E402
from tests.kernels.test_block_triton import launch_all as block  # noqa: E402
from tests.kernels.test_graph_conv_triton import (  # noqa: E402
    backward,
    float32_products,
    shaped,
)

pytestmark = [compiled, pytest.mark.unsanitized]


def graph_conv(dtype):
    given = shaped(2, 64, 64, 13, 42, dtype=dtype)
    import_module("msclr.kernels.graph_conv.triton_launch").forward(*given)
    backward(given)


def info_nce(dtype, dim, top_k):
    launch = import_module("msclr.kernels.info_nce.triton_launch")
    queries, keys, bank = (torch.zeros(s, dtype=dtype)
                           for s in [(3, 128, dim), (128, dim), (4096, dim)])  # fmt: skip
    given = queries, keys, bank, torch.tensor(0.07, dtype=torch.float64), 0, top_k, None, True
    loss, distribution, lse, *kept = launch.forward(*given)
    launch.backward(loss, distribution, lse, *given, *kept, *[True] * 4)


def multi_view(dtype, dim):
    launch = import_module("msclr.kernels.multi_view.triton_launch")
    given = arguments_of(CONTRACTS["multi_view_info_nce"], "two views", dtype)
    count, batch, _ = given.views.shape
    given = given._replace(views=torch.zeros(count, batch, dim, dtype=dtype))
    loss, *kept = launch.forward(*given)
    launch.backward(loss, *given, *kept, *[True] * 4)


def augment(dtype):
    given = arguments_of(CONTRACTS["augment"], "extreme, bone", dtype)
    import_module("msclr.kernels.augment.triton_launch").forward(*given)


HALF, SINGLE, DOUBLE = torch.float16, torch.float32, torch.float64
VARIANTS = {  # on the GPUs that are named: compiling takes seconds
    "graph_conv, float64": (partial(graph_conv, DOUBLE), 80, 90),
    "block, float64, large graph": (partial(block, DOUBLE, 16, 16, 128, DOUBLE), 90),
    "block, tf32": (partial(block, SINGLE, 64, 64, 25), 80),
    "info_nce, float64": (partial(info_nce, DOUBLE, 128, 1), 80),
    "info_nce, float64, 1024 columns": (partial(info_nce, DOUBLE, 1024, 1), 90),
    "info_nce, float16": (partial(info_nce, HALF, 128, 1), 80, 90),
    "info_nce, tf32": (partial(info_nce, SINGLE, 256, 1), 80),
    "info_nce, tf32, 512 columns": (partial(info_nce, SINGLE, 512, 1), 90),
    "info_nce, bfloat16, 512 columns": (partial(info_nce, torch.bfloat16, 512, 1), 80, 90),
    "info_nce, bfloat16, 1024 columns": (partial(info_nce, torch.bfloat16, 1024, 16), 80, 90),
    "info_nce, bfloat16, 16 nearest": (partial(info_nce, torch.bfloat16, 128, 16), 80, 90),
    "multi_view, float64": (partial(multi_view, DOUBLE, 128), 90),
    "multi_view, float16, 512 columns": (partial(multi_view, HALF, 512), 90),
    "multi_view, tf32": (partial(multi_view, SINGLE, 128), 80),
    "augment, float16": (partial(augment, HALF), 80, 90),
}
# Programs that spill registers, each named in docs/kernels.md.
SPILLS: dict[str, set[str]] = {
    "info_nce, float64, 1024 columns": {"stream", "pulls", "bank_gradient"},
    "info_nce, tf32, 512 columns": {"finish"},
    "multi_view, float64": {"losses", "gradients"},
    "multi_view, float16, 512 columns": {"gradient_sums"},
}


@pytest.mark.parametrize(
    ("variant", "capability"),
    [(name, capability) for name, (_, *named) in VARIANTS.items() for capability in named],
)
def test_it_compiles_fits_and_spills_only_where_it_is_said(variant, capability):
    call, *_ = VARIANTS[variant]
    with float32_products("tf32" if "tf32" in variant else "ieee"):
        programs = compile_launches(capability, call)
    assert programs
    for program in programs:
        assert program.shared <= SHARED_BYTES[capability], program.name
        if program.stack:
            assert program.name in SPILLS.get(variant, ()), f"{program.name}: {program.stack} bytes"
