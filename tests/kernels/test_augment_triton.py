"""augment in Triton: numbers on a GPU or in the interpreter, and the program as compiled.

Without a GPU the tests of numbers run in a process of their own: Triton reads TRITON_INTERPRET when
a program is defined.
"""

from __future__ import annotations

import pytest
import torch

from msclr import layouts
from msclr.kernels import augment, backends
from msclr.kernels._backend import interpreted
from msclr.kernels.augment import reference

pytest.importorskip("triton")
from msclr.kernels.augment import triton_launch  # noqa: E402
from tests.kernels.ahead_of_time import SHARED_BYTES, compile_launches  # noqa: E402
from tests.kernels.interpreter import passed_in_the_interpreter  # noqa: E402

DEVICE = "cpu" if interpreted() else "cuda"
LAYOUT = layouts.get("h36m_17")
# Clips 0..3 of pass 1: of flip, noise, blur and zeroed axis each happens and does not.
SEED, PURPOSE, CLIPS = 2**63, 1, 4
ERROR = 4e-7  # of the largest coordinate; measured: 2.4e-7 in the worst of these tests

numbers = pytest.mark.skipif(bool(backends()["triton"]), reason=backends()["triton"])
compiled = pytest.mark.skipif(interpreted(), reason="the interpreter compiles nothing")


def number(choice):
    """A view's or a stream's, as operators take it."""
    return (reference.VIEWS if choice in reference.VIEWS else reference.STREAMS).index(choice)


@pytest.mark.skipif(not backends()["triton"], reason="the tests of numbers run in this process")
def test_the_numbers_are_right_in_the_interpreter():
    assert passed_in_the_interpreter(__file__) >= 20


def clips(bodies=1, frames=9, joints=17, dtype=torch.float32) -> torch.Tensor:
    """(N, M, T, V, 3); the last clip lacks its last body."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(CLIPS, bodies, frames, joints, 3, generator=g)
    x[-1, -1] = 0
    return x.to(DEVICE, dtype)


def tables(joints: int) -> dict[str, torch.Tensor]:
    """A permutation and parents, of any number of joints."""
    turned, before = torch.arange(joints).flip(0), (torch.arange(joints) - 1).clamp(min=0)
    known = joints == LAYOUT.num_joints
    flip, parents = (LAYOUT.flip, LAYOUT.parents) if known else (turned, before)
    return {"flip": flip.to(DEVICE), "parents": parents.to(DEVICE)}


def of(x, backend="triton", index=None, **options):
    index = torch.arange(CLIPS, device=DEVICE) if index is None else index
    options = {"seed": SEED, "purpose": PURPOSE, **tables(x.shape[3]), **options}
    return augment(x, index, torch.ones_like(index), **options, backend=backend)


def assert_is_the_formula(x, view, stream, planar=False, dtype=torch.float32):
    found = of(x, view=view, stream=stream, planar=planar, dtype=dtype)
    index = torch.arange(CLIPS, device=DEVICE)
    joints = tables(x.shape[3])
    wanted = reference.augment(
        x.double(), index, index, torch.ones_like(index), SEED, PURPOSE, number(view),
        joints["flip"], number(stream), joints["parents"], planar, torch.float64,
    ).permute(0, 4, 2, 3, 1)  # fmt: skip
    assert found.shape == wanted.shape and found.dtype == dtype
    # half a unit in the last place; Triton's interpreter cuts bfloat16 off where a GPU rounds
    half = 2.0**-7 if interpreted() else 2.0**-8
    rounding = {torch.float32: 0.0, torch.float16: 2.0**-11, torch.bfloat16: half}[dtype]
    allowed = ERROR * max(1, x.float().abs().max()) + wanted.abs() * rounding
    assert ((found.double() - wanted).abs() <= allowed).all()
    if view == "extreme":
        assert not found[-1, ..., -1].any()  # the absent body


def test_every_step_is_chosen_and_left_out_for_some_clip():
    index = torch.arange(CLIPS)
    draws = reference.draw(index, index * 0 + 1, SEED, PURPOSE, 9, True, False)
    blurred = draws.taps.max(1).values < 1
    for chosen in (draws.flipped, draws.noisy[:-1], blurred, draws.zeroed >= 0, draws.start != 0):
        assert chosen.any() and not chosen.all()


@numbers
@pytest.mark.parametrize("stream", ["joint", "motion", "bone"])
@pytest.mark.parametrize("view", ["none", "normal", "extreme"])
def test_views_are_the_formulas(view, stream):
    assert_is_the_formula(clips(), view, stream)


@numbers
@pytest.mark.parametrize("stream", ["motion", "bone"])
@pytest.mark.parametrize("view", ["normal", "extreme"])
def test_planar_joints_keep_their_score(view, stream):
    assert_is_the_formula(clips(joints=5), view, stream, planar=True)


@numbers
@pytest.mark.parametrize("stream", ["joint", "motion"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 17, 3), (1, 2, 33), (3, 7, 2)], ids=str)
def test_any_size(shape, stream):
    assert_is_the_formula(clips(*shape), "extreme", stream)


@numbers
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_storage_and_results(dtype):
    assert_is_the_formula(clips(dtype=dtype), "extreme", "joint")
    assert_is_the_formula(clips(), "normal", "bone", dtype=dtype)


@numbers
def test_the_numbers_of_clips_stand_apart_from_their_rows():
    x, whole = clips(), of(clips(), view="extreme")
    index = torch.tensor([2, 1], device=DEVICE)
    part = of(x[1:3].contiguous(), index=index - 1, numbers=index, view="extreme")
    assert torch.equal(part, whole[index])


@numbers
def test_a_row_that_is_not_there_is_nan_and_nothing_is_read():
    x = clips()
    index = torch.tensor([1, -1, 4, 0], device=DEVICE)
    for view in (0, 2):
        found = triton_launch.forward(
            x, index, index, index, 3, 0, view, tables(17)["flip"], 0, None, False, torch.float32
        )
        assert found[1:3].isnan().all() and found[[0, 3]].isfinite().all()


@numbers
def test_an_empty_batch():
    none = torch.empty(0, dtype=torch.int64, device=DEVICE)
    assert of(clips(), index=none, view="extreme").shape == (0, 3, 9, 17, 1)


@numbers
def test_the_op_is_a_proper_one():
    index, joints = torch.arange(2, device=DEVICE), tables(17)
    rest = 3, 0, 1, joints["flip"], 2, joints["parents"], False, torch.float32
    torch.library.opcheck(torch.ops.msclr.augment_triton, (clips(), index, index, index, *rest))


@compiled
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("view", "stream"), [(1, 1), (2, 0), (2, 2)])
def test_the_program_keeps_to_its_registers(capability, view, stream):
    x, index, joints = torch.zeros(4, 2, 50, 25, 3), torch.arange(4), torch.arange(25)
    arguments = x, index, index, index, 3, 0, view, joints, stream, joints, False, torch.float32
    (program,) = compile_launches(capability, lambda: triton_launch.forward(*arguments))
    assert program.stack == 0, "it spills"
    assert program.shared <= SHARED_BYTES[capability]
