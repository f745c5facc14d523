"""masked_graph_conv equals its formula in plain loops; masks, support, memory orders, errors."""

from __future__ import annotations

from functools import partial
from itertools import product

import pytest
import torch

from msclr.kernels import backends, graph_support, masked_graph_conv
from msclr.kernels._backend import interpreted

COUNTS = torch.tensor([3, 5, 0])  # real joints of three layouts in V = 5; the last has none
INDEX = torch.tensor([1, 0, 2, 0])


@pytest.fixture(params=["reference", "cpu", "triton"])
def graph_conv(request, monkeypatch):
    """masked_graph_conv by each backend that can run here; takes and returns tensors on the CPU."""
    if reason := backends()[request.param]:
        pytest.skip(reason)
    run = partial(masked_graph_conv, backend=request.param)
    if request.param != "triton":
        return run
    if not interpreted():
        return partial(on_the_gpu, run)
    # Finite differences of every number would take the interpreter minutes.
    along_a_direction = partial(torch.autograd.gradcheck, fast_mode=True)
    monkeypatch.setattr(torch.autograd, "gradcheck", along_a_direction)
    return run


def on_the_gpu(run, *arguments, **options):
    """What run makes of the same tensors on the GPU, with the CPU's autocast as its own."""
    moved = [a if a is None else a.cuda() for a in arguments]
    options = {name: a if a is None else a.cuda() for name, a in options.items()}
    dtype, enabled = torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu")
    with torch.autocast("cuda", dtype, enabled=enabled):
        return run(*moved, **options).cpu()


def by_loops(x, weight, bias, adjacency, index=None, counts=None):
    """The formula of the docstring in Python numbers."""
    n, c_in, frames, v = x.shape
    k = adjacency.shape[-3]
    c_out = len(weight) // k
    rows = weight.reshape(len(weight), c_in).tolist()
    x, a = x.tolist(), adjacency.tolist()
    b = [0.0] * len(rows) if bias is None else bias.tolist()
    y = torch.zeros(n, c_out, frames, v, dtype=torch.float64)
    for s in range(n):
        graph = a if index is None else a[index[s]]
        real = range(v if index is None else int(counts[index[s]]))
        for o, t, w in product(range(c_out), range(frames), real):
            total = 0.0
            for part, u in product(range(k), real):
                row = part * c_out + o
                z = b[row] + sum(rows[row][c] * x[s][c][t][u] for c in range(c_in))
                total += z * graph[part][u][w]
            y[s, o, t, w] = total
    return y


def arguments(n=4, c_in=3, c_out=2, frames=2, v=5, k=3, layouts=0, seed=0):
    """x, weight, bias and adjacency, all dense, in float64."""
    g = torch.Generator().manual_seed(seed)
    a_shape = (layouts, k, v, v) if layouts else (k, v, v)
    shapes = (n, c_in, frames, v), (k * c_out, c_in), (k * c_out,), a_shape
    return [torch.randn(s, generator=g, dtype=torch.float64) for s in shapes]


def poisoned(x, adjacency, value):
    """x and adjacency with `value` wherever a joint is masked."""
    x, adjacency = x.detach().clone(), adjacency.detach().clone()
    for sample, layout in enumerate(INDEX.tolist()):
        x[sample, :, :, int(COUNTS[layout]) :] = value
    for layout, count in enumerate(COUNTS.tolist()):
        adjacency[layout, :, count:, :] = value
        adjacency[layout, :, :, count:] = value
    return x, adjacency


def value_and_gradients(graph_conv, x, weight, bias, adjacency, **options):
    leaves = [p.detach().clone().requires_grad_() for p in (x, weight, bias, adjacency)]
    y = graph_conv(*leaves, **options)
    upstream = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape)  # not 0 where masked
    return [y.detach(), *torch.autograd.grad(y, leaves, upstream)]


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("v", [1, 5])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_one_layout_is_the_formula(graph_conv, k, v, with_bias):
    x, weight, bias, adjacency = arguments(k=k, v=v)
    bias = bias if with_bias else None
    y = graph_conv(x, weight, bias, adjacency)
    torch.testing.assert_close(y, by_loops(x, weight, bias, adjacency))
    as_convolution = graph_conv(x, weight[..., None, None], bias, adjacency)
    torch.testing.assert_close(as_convolution, y)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_mixed_layouts_are_the_formula(graph_conv, dtype):
    x, weight, bias, adjacency = arguments(layouts=3)
    y = graph_conv(x, weight, bias, adjacency, INDEX.to(dtype), COUNTS.to(dtype))
    torch.testing.assert_close(y, by_loops(x, weight, bias, adjacency, INDEX, COUNTS))


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("k", [1, 3])
def test_gradients_are_those_of_the_formula(graph_conv, k, mixed):
    leaves = [p.requires_grad_() for p in arguments(n=2, frames=1, v=3, k=k, layouts=2 * mixed)]
    layouts = (torch.tensor([0, 1]), torch.tensor([3, 2])) if mixed else ()
    assert torch.autograd.gradcheck(lambda *p: graph_conv(*p, *layouts), leaves)
    x, weight, _, adjacency = leaves
    assert torch.autograd.gradcheck(
        lambda *p: graph_conv(p[0], p[1][..., None, None], None, p[2], *layouts),
        (x, weight, adjacency),
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_what_stands_in_masked_joints_changes_nothing(graph_conv, value):
    x, weight, bias, adjacency = arguments(layouts=3)
    options = {"layout_index": INDEX, "joint_counts": COUNTS}
    clean = value_and_gradients(graph_conv, x, weight, bias, adjacency, **options)
    x, adjacency = poisoned(x, adjacency, value)
    dirty = value_and_gradients(graph_conv, x, weight, bias, adjacency, **options)
    for a, b in zip(clean, dirty, strict=True):
        assert torch.equal(a, b)


def test_masked_joints_come_out_0_and_get_gradient_0(graph_conv):
    x, weight, bias, adjacency = arguments(layouts=3)
    options = {"layout_index": INDEX, "joint_counts": COUNTS}
    y, dx, _, _, da = value_and_gradients(graph_conv, x, weight, bias, adjacency, **options)
    where_x, where_a = poisoned(torch.zeros_like(x), torch.zeros_like(adjacency), 1)
    masked = where_x[:, :1].bool().expand_as(y)
    assert (y[masked] == 0).all() and (y[~masked] != 0).all()
    assert (dx[where_x.bool()] == 0).all() and (dx[~where_x.bool()] != 0).all()
    used = ~where_a.bool()
    assert (da[~used] == 0).all() and (da[used] != 0).all()


@pytest.mark.parametrize("mixed", [False, True])
def test_support_gives_the_same_and_no_gradient_outside(graph_conv, mixed):
    x, weight, bias, adjacency = arguments(layouts=3 * mixed)
    adjacency[torch.rand(adjacency.shape, generator=torch.Generator().manual_seed(1)) < 0.6] = 0
    options = {"layout_index": INDEX, "joint_counts": COUNTS} if mixed else {}
    support = graph_support(adjacency)
    assert support.dtype == torch.bool and torch.equal(support, adjacency != 0)
    full = value_and_gradients(graph_conv, x, weight, bias, adjacency, **options)
    sparse = value_and_gradients(graph_conv, x, weight, bias, adjacency, support=support, **options)
    torch.testing.assert_close(sparse[:4], full[:4])
    torch.testing.assert_close(sparse[4][support], full[4][support])
    assert (sparse[4][~support] == 0).all()
    assert (full[4][~support] != 0).any(), "the promise made no difference: nothing was tested"


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("mixed", [False, True])
def test_no_sample_and_one_sample(graph_conv, n, mixed):
    x, weight, bias, adjacency = arguments(n=n, layouts=3 * mixed)
    layouts = (INDEX[:n], COUNTS) if mixed else (None, None)
    options = {"layout_index": layouts[0], "joint_counts": layouts[1]}
    y, dx, dw, _, _ = value_and_gradients(graph_conv, x, weight, bias, adjacency, **options)
    torch.testing.assert_close(y, by_loops(x, weight, bias, adjacency, *layouts))
    assert dx.shape == x.shape and bool(dw.any()) == (n > 0)


@pytest.mark.parametrize("mixed", [False, True])
def test_the_order_in_memory_changes_nothing(graph_conv, mixed):
    x, weight, bias, adjacency = arguments(layouts=3 * mixed)
    options = {"layout_index": INDEX, "joint_counts": COUNTS} if mixed else {}
    expected = graph_conv(x, weight, bias, adjacency, **options)
    orders = {
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "joints first": x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        "every other frame": x.repeat_interleave(2, dim=2)[:, :, ::2],
        "a slice of joints": torch.cat([x, x], dim=3)[..., : x.shape[3]],
    }
    for name, strided in orders.items():
        assert name == "channels_last" or not strided.is_contiguous()
        y = graph_conv(
            strided,
            weight.T.contiguous().T,
            bias.repeat_interleave(2)[::2],
            adjacency.mT.contiguous().mT,
            **options,
        )
        torch.testing.assert_close(y, expected, msg=lambda m, name=name: f"{name}: {m}")


def test_an_expanded_x_gets_its_gradient(graph_conv):
    x, weight, bias, adjacency = arguments(n=1)
    leaf = x.clone().requires_grad_()
    graph_conv(leaf.expand(4, -1, -1, -1), weight, bias, adjacency).sum().backward()
    one = x.clone().requires_grad_()
    graph_conv(one, weight, bias, adjacency).sum().backward()
    torch.testing.assert_close(leaf.grad, 4 * one.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_result_has_the_dtype_of_x(graph_conv, dtype):
    rounded = [p.to(dtype) for p in arguments()]
    y = graph_conv(*rounded)
    assert y.dtype == dtype
    exact = by_loops(*[p.double() for p in rounded])
    size = exact.abs().max()
    assert (y.double() - exact).abs().max() <= 4 * torch.finfo(dtype).eps * size


def test_under_autocast_the_result_has_its_dtype(graph_conv):
    leaves = [p.float().requires_grad_() for p in arguments()]
    with torch.autocast("cpu", torch.bfloat16):
        y = graph_conv(*leaves)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in leaves)


def test_128_joints_are_taken(graph_conv):
    x, weight, bias, adjacency = arguments(n=1, frames=1, v=128, k=1)
    y = graph_conv(x, weight, bias, adjacency)
    torch.testing.assert_close(y, by_loops(x, weight, bias, adjacency))


MIXED = {
    "adjacency": torch.zeros(2, 3, 5, 5),
    "layout_index": torch.tensor([0, 1, 0, 1]),
    "joint_counts": torch.tensor([3, 5]),
}


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("x", {"x": torch.zeros(4, 3, 5)}),
        ("x", {"x": torch.zeros(4, 3, 2, 5, dtype=torch.int64)}),
        ("x", {"x": torch.zeros(4, 3, 2, 129)}),
        ("x", {"x": torch.zeros(4, 3, 2, 0)}),
        ("weight", {"weight": torch.zeros(6, 4)}),
        ("weight", {"weight": torch.zeros(7, 3)}),
        ("weight", {"weight": torch.zeros(6, 3, 1)}),
        ("weight", {"weight": torch.zeros(6, 3, 3, 1)}),
        ("weight", {"weight": torch.zeros(6, 3, device="meta")}),
        ("bias", {"bias": torch.zeros(5)}),
        ("bias", {"bias": torch.zeros(6, 1)}),
        ("adjacency", {"adjacency": torch.zeros(5, 5)}),
        ("adjacency", {"adjacency": torch.zeros(3, 5, 4)}),
        ("adjacency", {"adjacency": torch.zeros(3, 4, 4)}),
        ("adjacency", {"adjacency": torch.zeros(2, 3, 5, 5)}),
        ("adjacency", {**MIXED, "adjacency": torch.zeros(3, 5, 5)}),
        ("support", {"support": torch.ones(3, 5, 5)}),
        ("support", {"support": torch.ones(2, 5, 5, dtype=torch.bool)}),
        ("layout_index and joint_counts", {**MIXED, "layout_index": None}),
        ("layout_index", {**MIXED, "layout_index": torch.zeros(4)}),
        ("layout_index", {**MIXED, "layout_index": torch.zeros(3, dtype=torch.int64)}),
        ("layout_index", {**MIXED, "layout_index": torch.tensor([0, 1, 2, 0])}),
        ("layout_index", {**MIXED, "layout_index": torch.tensor([0, 1, -1, 0])}),
        ("layout_index and joint_counts", {**MIXED, "joint_counts": None}),
        ("joint_counts", {**MIXED, "joint_counts": torch.tensor([3.0, 5.0])}),
        ("joint_counts", {**MIXED, "joint_counts": torch.tensor([3, 5, 5])}),
        ("joint_counts", {**MIXED, "joint_counts": torch.tensor([3, 6])}),
        ("joint_counts", {**MIXED, "joint_counts": torch.tensor([-1, 5])}),
        ("backend", {"backend": "abacus"}),
    ],
)
def test_a_wrong_argument_is_named(name, changed):
    x, weight, bias, adjacency = (p.float() for p in arguments())
    good = {"x": x, "weight": weight, "bias": bias, "adjacency": adjacency}
    masked_graph_conv(**good)
    with pytest.raises(ValueError, match=rf"^{name} "):
        masked_graph_conv(**(good | changed))


@pytest.mark.parametrize("wrong", [torch.zeros(5, 5), [[1.0]]])
def test_graph_support_names_a_wrong_adjacency(wrong):
    with pytest.raises(ValueError, match="^adjacency "):
        graph_support(wrong)
