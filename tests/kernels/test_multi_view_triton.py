"""multi_view_info_nce in Triton: numbers on a GPU or in the interpreter, and programs as compiled.

Without a GPU test_triton_interpreted.py runs the tests of numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from msclr.kernels import multi_view_info_nce

pytest.importorskip("triton")
from msclr.kernels.multi_view import plan, triton_launch  # noqa: E402
from tests.kernels.ahead_of_time import SHARED_BYTES, compile_launches  # noqa: E402
from tests.kernels.interpreter import DEVICE, compiled, numbers  # noqa: E402
from tests.kernels.multi_view_inputs import AT_HUGE_LOGITS, errors_at_huge_logits  # noqa: E402

NEAR, FAR = 0.2, 0.01  # temperatures: whether exp(similarity / T) is far from overflow


def arguments(views, clips, dim, bank=None, dtype=torch.float32, seed=0):
    """Views and bank on the device, of norm 1 before they are rounded."""
    g = torch.Generator().manual_seed(seed)
    shapes = (views, clips, dim), None if bank is None else (bank, dim)
    return [
        s and F.normalize(torch.randn(s, generator=g), dim=-1).to(DEVICE, dtype) for s in shapes
    ]


def loss_and_gradients(backend, tensors, temperature=NEAR, number=None, **options):
    """Loss, and of 1.7 of it the gradients of temperature, views and bank, all in float64."""
    leaves = [
        None if t is None else t.detach().to(number or t.dtype).requires_grad_() for t in tensors
    ]
    scalar = torch.tensor(temperature, dtype=torch.float64, device=DEVICE, requires_grad=True)
    loss = multi_view_info_nce(leaves[0], scalar, bank=leaves[1], backend=backend, **options)
    wanted = [scalar, *(t for t in leaves if t is not None and t.numel())]
    return [t.detach().cpu().double() for t in (loss, *torch.autograd.grad(1.7 * loss, wanted))]


@numbers
@pytest.mark.parametrize(("negatives", "temperature"), [("view", NEAR), ("batch", FAR)])
def test_several_tiles_and_regions_are_the_formula(negatives, temperature):
    """Of whole tiles, partial ones, and those that hold an anchor's own clip, all there are."""
    tensors = arguments(2, 200, 16, 70, torch.bfloat16)
    found = loss_and_gradients("triton", tensors, temperature, negatives=negatives)
    exact = loss_and_gradients(
        "reference", tensors, temperature, torch.float64, negatives=negatives
    )
    assert abs(found[0] - exact[0]) <= 5e-7 * exact[0]
    for gradient, right in zip(found[1:], exact[1:], strict=True):  # their weights are rounded
        assert (gradient - right).abs().max() <= 1.6e-2 * right.abs().max()


@numbers
def test_splits_change_nothing_beyond_rounding(monkeypatch):
    tensors = arguments(2, 70, 5, 80)
    found = []
    for programs in (1, 40):
        monkeypatch.setattr(triton_launch, "_programs", lambda _, n=programs: n)
        found.append(loss_and_gradients("triton", tensors, negatives="batch"))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-7)
    assert not torch.equal(found[1][2], found[0][2]), "nothing was split"


@numbers
@pytest.mark.skipif(DEVICE == "cpu", reason="programs of the interpreter run one after the other")
@pytest.mark.parametrize("temperature", [NEAR, FAR])
@pytest.mark.parametrize("negatives", ["view", "batch"])
def test_many_rows_give_the_same_bits_again(negatives, temperature):
    tensors = arguments(2, 3000, 128, 500, torch.bfloat16)
    once, *others = (
        loss_and_gradients("triton", tensors, temperature, negatives=negatives) for _ in range(4)
    )
    for other in others:
        for a, b in zip(once, other, strict=True):
            assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))


@numbers
@pytest.mark.parametrize("options", AT_HUGE_LOGITS, ids=str)
def test_gradients_keep_their_digits_at_logits_of_ten_thousand(options):
    errors = errors_at_huge_logits("triton", DEVICE, **options)
    assert max(errors) < 2e-6


@numbers
def test_huge_and_tiny_rows_stay_finite():
    views, bank = arguments(2, 20, 16, 9)
    views[:, 3] *= 100  # a logit of 1e6
    views[:, 4] *= 1e-20
    views[:, 5] = 0
    assert all(g.isfinite().all() for g in loss_and_gradients("triton", [views, bank], FAR))


@numbers
def test_a_loss_of_almost_nothing_keeps_its_digits():
    """Positives far above all else: log-sum-exp and positive differ by less than their rounding."""
    views = torch.eye(4, device=DEVICE).repeat(2, 1, 1)
    for temperature in (0.05, 0.04):
        loss = multi_view_info_nce(views, temperature, backend="triton")
        expected = math.log1p(3 * math.exp(-1 / temperature))
        assert math.isclose(loss.item(), expected, rel_tol=1e-5)


@numbers
def test_nan_comes_out():
    views, bank = arguments(3, 6, 4, 5)
    views[1, 2, 3] = torch.nan
    loss, _, gradient, _ = loss_and_gradients("triton", [views, bank])
    assert loss.isnan()
    assert gradient.isnan().any()


@numbers
def test_float32_views_may_meet_a_half_precision_bank():
    views, bank = arguments(2, 5, 6, 7)
    mixed = loss_and_gradients("triton", [views, bank.bfloat16()])
    wide = loss_and_gradients("triton", [views, bank.bfloat16().float()])
    torch.testing.assert_close(mixed[:3], wide[:3])
    torch.testing.assert_close(mixed[3], wide[3], rtol=2**-7, atol=0)


@numbers
def test_small_weights_survive_float16():
    """Negatives have a weight of 2e-9 each: were it a number of float16, it would be 0."""
    views = torch.eye(8, dtype=torch.float16, device=DEVICE).repeat(2, 1, 1)

    def gradient(backend, views):
        loss = multi_view_info_nce(views.requires_grad_(), 0.05, backend=backend)
        return torch.autograd.grad(2.0**16 * loss, views)[0].double()

    expected = gradient("reference", views.detach().double())
    torch.testing.assert_close(gradient("triton", views), expected, rtol=2e-3, atol=6e-8)


@numbers
def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"^views\b.*512.*513.*backend='reference'"):
        multi_view_info_nce(arguments(2, 2, 513)[0], backend="triton")


@compiled
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("all_views", [False, True])
@pytest.mark.parametrize("pairs", [(0, 1), (0, 1, 1, 0), (0, 1, 1, 2, 2, 1), (2, 0, 2, 1)])
@pytest.mark.parametrize("programs", [1, 7, 100])
def test_regions_hold_every_similarity_once(programs, pairs, all_views, shared):
    meetings = plan.Meetings(pairs, 3, all_views)
    clips = 30 if shared else 45
    sizes = plan.Sizes(30, clips, 20, 8, programs)
    regions = plan.regions(meetings, shared, sizes, torch.device("cpu"))
    counts, places, splits = regions.counts.tolist(), Counter(), Counter()
    for table, bank in ((regions.of_clips, False), (regions.of_bank, True)):
        for i, j, a, a_end, b, b_end, split, other in table.tolist():
            assert bank == (j == 3)
            places.update((i, r, j, c) for r in range(a, a_end) for c in range(b, b_end))
            splits.update((i, r, j, split) for r in range(a, a_end))
            if other >= 0:
                places.update((j, c, i, r) for r in range(a, a_end) for c in range(b, b_end))
                splits.update((j, c, i, other) for c in range(b, b_end))
    expected = [
        (i, r, j, c)
        for i in meetings.anchors
        for j in [*meetings.met_by(i), 3]
        for r in range(30)
        for c in range(20 if j == 3 else clips)
    ]
    assert places == Counter(expected)
    ends = {(i, r, j) for i, r, j, _ in expected}
    assert splits == Counter((*end, s) for end in ends for s in range(counts[end[0]][end[2]]))
    assert regions.splits >= max(map(max, counts))


def launch_all(dtype, dim):
    """Forward, and backward with every gradient, of which only launches matter."""
    views = torch.zeros(2, 4096, dim, dtype=dtype)
    call = views, torch.tensor(0.07, dtype=torch.float64), [0, 1, 1, 0], None, 0, None, False
    loss, *saved = triton_launch.forward(*call)
    triton_launch.backward(loss, *call, *saved, True, True, False, False)


@compiled
@pytest.mark.parametrize(
    ("capability", "dtype", "dim"),
    [*product([80, 90], [torch.bfloat16], [128, 256]), (90, torch.float32, 128)],
    ids=str,
)
def test_programs_keep_to_registers_shared_memory_and_tensor_cores(capability, dtype, dim):
    programs = compile_launches(capability, lambda: launch_all(dtype, dim))
    names = "region_sums", "losses", "anchor_factors", "gradient_sums", "gradients"
    assert tuple(p.name for p in programs) == names
    for program in programs:
        assert program.stack == 0, f"{program.name} spills"
        assert program.shared <= SHARED_BYTES[capability], program.name
        instruction = {80: "HMMA", 90: "HGMMA"}[capability]
        on_tensor_cores = program.count(rf"{instruction}[\w.]*") > 0
        wanted = program.name.endswith("_sums") and dtype == torch.bfloat16
        assert on_tensor_cores == wanted, program.name
