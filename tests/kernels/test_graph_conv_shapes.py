"""Every compiled backend against the reference in float64, over shapes that kernels stumble on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from msclr import kernels, layouts

DEVICES = {"cpu": "cpu", "triton": "cuda", "cuda": "cuda"}
NAMES = ("y", "x", "weight", "bias", "adjacency")


@pytest.fixture(params=list(DEVICES) if torch.cuda.is_available() else ["cpu"])
def backend(request):
    if reason := kernels.backends()[request.param]:
        pytest.skip(reason)
    return request.param


def tree(k: int, v: int, generator: torch.Generator) -> torch.Tensor:
    """A graph of the usual kind: few neighbours, and joints without any in some partitions."""
    parents = [int(torch.randint(max(w, 1), (), generator=generator)) for w in range(v)]
    a = torch.zeros(k, v, v, dtype=torch.float64)
    for w in range(v):
        a[0, w, w] = 1
        if k > 1:
            a[1, parents[w], w] = 0.5
        if k > 2 and w % 3 == 0:
            a[2, w, parents[w]] = 0.25
        for extra in range(3, k):
            a[extra, (w + extra) % v, w] = 1 / extra
    return a


def case(n=3, c_in=5, c_out=7, t=6, v=9, k=3, dtype=torch.float64, mixed=False, seed=0):
    """x, weight, bias, adjacency of `dtype`, and the rest of the arguments."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x = draw(n, c_in, t, v).contiguous(memory_format=torch.channels_last)
    a, rest = tree(k, v, generator), {}
    if mixed:
        counts = torch.tensor([v, max(v // 2, 1)])
        a = torch.stack([a, a.roll(1, 1)])
        a[1, :, counts[1] :], a[1, :, :, counts[1] :] = 0, 0
        rest = {"layout_index": torch.arange(n) % 2, "joint_counts": counts}
        x[1::2, ..., int(counts[1]) :] = float("nan")
    tensors = x, draw(k * c_out, c_in) / c_in**0.5, draw(k * c_out), a
    return [p.to(dtype) for p in tensors], {"support": kernels.graph_support(a), **rest}


def results(backend, tensors, rest, dtype):
    """y and the gradients of a fixed function of it, on the CPU in float64."""
    device = DEVICES.get(backend, "cpu")
    leaves = [p.to(dtype).to(device).requires_grad_() for p in tensors]
    rest = {n: p.to(device) for n, p in rest.items()}
    y = kernels.masked_graph_conv(*leaves, backend=backend, **rest)
    upstream = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape)
    gradients = torch.autograd.grad(y, leaves, upstream.to(y))
    return {n: p.detach().cpu().double() for n, p in zip(NAMES, (y, *gradients), strict=True)}


def check(backend, dtype=torch.float64, **shape):
    tensors, rest = case(dtype=dtype, **shape)
    clean = [p.nan_to_num() for p in tensors]  # the reference would multiply NaN in masked joints
    wanted = results("reference", clean, rest, torch.float64)
    got = results(backend, tensors, rest, dtype)
    assert_near(got, wanted, {torch.float64: 1e-10, torch.float32: 2e-5}[dtype])


def assert_near(got, wanted, tolerance):
    """No further apart than so many times the largest number."""
    for name in NAMES:
        size = wanted[name].abs().max()
        error = (got[name] - wanted[name]).abs().max()
        assert error <= tolerance * size, f"{name} is {error / size} of its size off"


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("v", [1, 2, 17, 25, 42, 43, 64, 87, 128])
def test_any_number_of_joints(backend, v, mixed):
    check(backend, torch.float32, v=v, mixed=mixed, n=4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_any_number_of_partitions(backend, k, dtype):
    if backend != "cpu" and dtype == torch.float64:
        pytest.skip("float64 is for the CPU")
    check(backend, dtype, k=k, v=25)


@pytest.mark.parametrize(
    ("c_in", "c_out"), [(1, 1), (2, 3), (3, 16), (5, 1), (13, 17), (33, 31), (40, 36), (64, 129)]
)
@pytest.mark.parametrize("mixed", [False, True])
def test_any_number_of_channels(backend, c_in, c_out, mixed):
    check(backend, torch.float32, c_in=c_in, c_out=c_out, v=17, mixed=mixed)


@pytest.mark.parametrize("t", [1, 2, 3, 5, 75])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_any_number_of_frames_and_samples(backend, n, t):
    check(backend, torch.float32, n=n, t=t, c_in=32, c_out=32, v=25)


@pytest.mark.parametrize("n, t", [(2, 0), (0, 3)])
def test_nothing_comes_of_nothing(backend, n, t):
    tensors, rest = case(n=n, t=t, c_in=32, c_out=32)
    got = results(backend, tensors, rest, torch.float32)
    assert got["y"].shape == (n, 32, t, 9)
    assert all(not got[name].any() for name in NAMES)


def test_many_wide_tiles_of_joints_sorted_by_partition(backend):
    check(backend, torch.float32, n=5, t=40, c_in=48, c_out=40, v=42, mixed=True)


def test_an_entry_of_the_support_that_is_0_now_gets_its_gradient(backend):
    tensors, rest = case(c_in=32, c_out=32, v=9)
    adjacency = tensors[3]
    rest["support"] = adjacency != 0
    adjacency[2] = 0  # the whole partition, as importance may become
    wanted = results("reference", tensors, rest, torch.float64)
    got = results(backend, tensors, rest, torch.float32)
    assert wanted["adjacency"][2].any()
    torch.testing.assert_close(got["adjacency"], wanted["adjacency"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_dense_adjacency_without_support(backend, mixed):
    tensors, rest = case(c_in=12, c_out=20, v=25, mixed=mixed)
    tensors[3] = torch.randn(tensors[3].shape, generator=torch.Generator().manual_seed(1)).double()
    del rest["support"]
    wanted = results("reference", [p.nan_to_num() for p in tensors], rest, torch.float64)
    assert_near(results(backend, tensors, rest, torch.float32), wanted, 2e-5)


def test_forty_thousand_tracks(backend):
    n, t, v = 40_000, 16, 25
    adjacency = layouts.get("kinectv2_25").adjacency()
    x = torch.ones(1, 1, 1, 1).expand(n, 1, t, v).contiguous(memory_format=torch.channels_last)
    x *= torch.arange(n).view(-1, 1, 1, 1) % 7
    weight, device = torch.ones(len(adjacency), 1), DEVICES[backend]
    y = kernels.masked_graph_conv(
        *(p.to(device) for p in (x, weight)), None, adjacency.to(device), backend=backend
    ).cpu()
    one = adjacency.sum((0, 1))  # (V,)
    torch.testing.assert_close(y, x * one)


def test_more_than_two_to_the_31_elements():
    if reason := kernels.backends()["cpu"]:
        pytest.skip(reason)
    n, c_out, t, v = 40_000, 64, 50, 17  # 4.4 GB of bfloat16; x is the memory of one sample
    x = torch.ones(1, 1, t, v, dtype=torch.bfloat16).expand(n, 1, t, v)
    weight = torch.arange(c_out, dtype=torch.float32)[:, None]
    y = kernels.masked_graph_conv(x, weight, None, 2 * torch.eye(v)[None], backend="cpu")
    assert y.numel() > 2**31
    for sample in (0, n // 2, n - 1):
        assert (y[sample] == 2 * weight[..., None]).all()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc fills memory on request")
def test_scratch_memory_may_hold_anything():
    """malloc hands out bytes of 0x7f, 3e38 as a float, also where it would map fresh zeros."""
    filled = {"MALLOC_PERTURB_": "128", "MALLOC_MMAP_THRESHOLD_": str(2**30)}
    environment = {n: v for n, v in os.environ.items() if n != "GLIBC_TUNABLES"} | filled
    chosen = "test_any_number_of_channels or sorted_by_partition or dense_adjacency"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", __file__, "-k", chosen, "-q", "-p", "no:cacheprovider"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
