"""masked_graph_conv equals its formula in plain loops; any sizes, masks, support, errors."""

from __future__ import annotations

from functools import partial
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msclr import layouts
from msclr.kernels import backends, graph_support, masked_graph_conv
from msclr.kernels._backend import interpreted
from msclr.kernels._cases import converted
from msclr.kernels.graph_conv.cases import make
from tests.kernels.contract import CONTRACTS, error_of, in_float64, results_of

COUNTS = torch.tensor([3, 5, 0])  # real joints of three layouts in V = 5; the last has none
INDEX = torch.tensor([1, 0, 2, 0])


REFERENCE = partial(masked_graph_conv, backend="reference")


@pytest.fixture(params=["reference", "cpu", "triton"])
def graph_conv(request):
    """masked_graph_conv by each backend that can run here; takes and returns tensors on the CPU."""
    if reason := backends()[request.param]:
        pytest.skip(reason)
    if request.param == "reference":
        return REFERENCE
    run = partial(masked_graph_conv, backend=request.param)
    on_a_gpu = request.param == "triton" and not interpreted()
    return partial(on_the_gpu, run) if on_a_gpu else run


def on_the_gpu(run, *arguments, **options):
    """What run makes of the same tensors on the GPU."""
    moved = [a if a is None else a.cuda() for a in arguments]
    options = {name: a if a is None else a.cuda() for name, a in options.items()}
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


def value_and_gradients(graph_conv, x, weight, bias, adjacency, masked=None, **options):
    """``masked``: what the incoming gradient is in masked joints, if not numbers as elsewhere."""
    leaves = [p.detach().clone().requires_grad_() for p in (x, weight, bias, adjacency)]
    y = graph_conv(*leaves, **options)
    upstream = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape)
    if masked is not None:
        upstream = poisoned(upstream, adjacency, masked)[0]
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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_the_content_of_masked_joints_changes_nothing(graph_conv, value):
    x, weight, bias, adjacency = arguments(layouts=3)
    options = {"layout_index": INDEX, "joint_counts": COUNTS}
    clean = value_and_gradients(graph_conv, x, weight, bias, adjacency, **options)
    x, adjacency = poisoned(x, adjacency, value)
    if graph_conv is not REFERENCE:  # autograd multiplies them with 0
        options["masked"] = value
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


@pytest.fixture(
    scope="module", params=["cpu", *(["triton", "cuda"] if torch.cuda.is_available() else [])]
)
def fast(request):
    """The compiled backends, and Triton where it is, and the devices that they take."""
    if reason := backends()[request.param]:
        pytest.skip(reason)
    return request.param, "cpu" if request.param == "cpu" else "cuda"


@st.composite
def problems(draw):
    sizes = draw(st.integers(1, 7)), draw(st.integers(1, 65)), draw(st.integers(1, 130))
    joints = draw(st.one_of(st.integers(1, 60), st.integers(1, 128)))
    counts = draw(st.lists(st.integers(0, joints), max_size=3))
    frames, partitions = draw(st.integers(1, 80)), draw(st.integers(1, 5))
    frames = max(1, min(frames, 1000 // joints))
    options = {"bias": draw(st.booleans()), "dense": draw(st.booleans())}
    return make(*sizes, frames, joints, partitions, tuple(counts), **options)


@settings(deadline=None, max_examples=40)
@given(arguments=problems())
def test_any_sizes_are_the_reference(fast, arguments):
    contract, arguments = CONTRACTS["graph_conv"], converted(arguments, torch.float32, fast[1])
    found, exact = results_of(contract, fast[0], arguments), in_float64(contract, arguments)
    assert found.keys() == exact.keys()
    for name, tensor in exact.items():
        assert error_of(found[name], tensor) < 2e-5, name


def test_an_entry_of_the_support_that_is_0_now_gets_its_gradient(graph_conv):
    x, weight, bias, adjacency = arguments()
    support = torch.ones_like(adjacency, dtype=torch.bool)
    adjacency[2] = 0  # the whole partition, as importance may become
    gradient = value_and_gradients(graph_conv, x, weight, bias, adjacency, support=support)[-1]
    expected = value_and_gradients(masked_graph_conv, x, weight, bias, adjacency)[-1]
    assert expected[2].all()
    torch.testing.assert_close(gradient, expected)


def test_no_frames_give_no_result_and_gradients_of_0(fast):
    given = [p.to(fast[1], torch.float32) for p in arguments(frames=0)]
    y, *gradients = value_and_gradients(partial(masked_graph_conv, backend=fast[0]), *given)
    assert y.shape == (4, 2, 0, 5) and not any(g.any() for g in gradients)


def test_the_memory_format_of_x_is_kept(fast):
    x, *parameters = (p.to(fast[1], torch.float32) for p in arguments())
    last = x.contiguous(memory_format=torch.channels_last)
    last, first = (masked_graph_conv(z, *parameters, backend=fast[0]) for z in (last, x))
    assert last.is_contiguous(memory_format=torch.channels_last) and first.is_contiguous()
    torch.testing.assert_close(last, first)


@pytest.mark.unsanitized
def test_forty_thousand_tracks(fast):
    adjacency = layouts.get("kinectv2_25").adjacency()
    x = torch.ones(1, 1, 1, 1).expand(40_000, 1, 16, 25)
    x = x.contiguous(memory_format=torch.channels_last)
    x *= torch.arange(40_000).view(-1, 1, 1, 1) % 7
    given = [p.to(fast[1]) for p in (x, torch.ones(len(adjacency), 1), adjacency)]
    y = masked_graph_conv(*given[:2], None, given[2], backend=fast[0]).cpu()
    torch.testing.assert_close(y, x * adjacency.sum((0, 1)))


@pytest.mark.unsanitized
def test_more_than_two_to_the_31_elements():
    if reason := backends()["cpu"]:
        pytest.skip(reason)
    n, c_out, t, v = 40_000, 64, 50, 17  # 4.4 GB of bfloat16; x is the memory of one sample
    x = torch.ones(1, 1, t, v, dtype=torch.bfloat16).expand(n, 1, t, v)
    weight = torch.arange(c_out, dtype=torch.float32)[:, None]
    y = masked_graph_conv(x, weight, None, 2 * torch.eye(v)[None], backend="cpu")
    assert y.numel() > 2**31
    for sample in (0, n // 2, n - 1):
        assert (y[sample] == 2 * weight[..., None]).all()


@pytest.mark.skipif(bool(backends()["cpu"]), reason=backends()["cpu"] or "")
def test_a_call_past_the_checks_of_python_stays_within_its_memory():
    x, weight, _, adjacency = arguments()
    for wrong in (weight[:, :2], adjacency), (weight[:5], adjacency), (weight, adjacency[..., 1:]):
        with pytest.raises(RuntimeError, match="(weight|adjacency) must"):
            torch.ops.msclr.graph_conv(x, wrong[0], None, wrong[1])


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
