"""The compiled graph convolution as an op: opcheck, gradients, compile, export, threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from msclr import kernels

pytestmark = pytest.mark.skipif(
    bool(kernels.backends()["cpu"]), reason=f"no compiled operators: {kernels.backends()['cpu']}"
)


def inputs(n=2, c_in=3, c_out=4, t=3, v=5, k=2, dtype=torch.float64, mixed=False, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    x = draw(n, c_in, t, v).contiguous(memory_format=torch.channels_last)
    adjacency = draw(*([2] if mixed else []), k, v, v)
    support = torch.rand(adjacency.shape, generator=generator) < 0.5
    layouts = (torch.arange(n) % 2, torch.tensor([v, v - 2])) if mixed else (None, None)
    tensors = x, draw(k * c_out, c_in), draw(k * c_out), adjacency * support
    return [a.requires_grad_() for a in tensors], [*layouts, support]


@pytest.mark.parametrize("mixed", [False, True])
def test_opcheck_holds(mixed):
    tensors, rest = inputs(mixed=mixed, dtype=torch.float32)
    torch.library.opcheck(torch.ops.msclr.graph_conv, (*tensors, *rest))


@pytest.mark.parametrize("mixed", [False, True])
def test_gradients_are_those_of_finite_differences(mixed):
    tensors, (index, counts, support) = inputs(mixed=mixed)

    def run(x, weight, bias, adjacency):
        adjacency = adjacency * support  # what a support promises
        return kernels.masked_graph_conv(
            x, weight, bias, adjacency, index, counts, support, backend="cpu"
        )

    assert torch.autograd.gradcheck(run, tensors)


def test_the_op_is_one_node_for_compile_and_export():
    tensors, (_, _, support) = inputs(dtype=torch.float32)

    class Layer(torch.nn.Module):
        def forward(self, x, weight, bias, adjacency):
            return kernels.masked_graph_conv(x, weight, bias, adjacency, support=support).relu()

    expected = Layer()(*tensors)
    compiled = torch.compile(Layer(), fullgraph=True, backend="aot_eager")(*tensors)
    torch.testing.assert_close(compiled, expected)
    gradients = [torch.autograd.grad(y.square().sum(), tensors) for y in (compiled, expected)]
    torch.testing.assert_close(*gradients)
    program = torch.export.export(Layer(), tuple(t.detach() for t in tensors))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert sum("msclr.graph_conv" in name for name in names) == 1


def test_the_op_may_be_used_twice_in_one_graph():
    (x, weight, bias, adjacency), _ = inputs(c_in=4, c_out=4)

    def twice(backend):
        y = kernels.masked_graph_conv(x, weight, bias, adjacency, backend=backend)
        y = kernels.masked_graph_conv(y, weight, bias, adjacency, backend=backend)
        return torch.autograd.grad(y.square().sum(), (x, weight, bias, adjacency))

    torch.testing.assert_close(twice("cpu"), twice("reference"))


def test_two_threads_get_what_one_gets():
    cases = [inputs(n=6, c_in=16, c_out=16, t=20, v=17, seed=s)[0] for s in range(8)]

    def run(tensors):
        return kernels.masked_graph_conv(*tensors, backend="cpu").detach()

    alone = [run(case) for case in cases]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(run, cases))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_further_from_float64_than_pytorch(dtype):
    tensors, (_, _, support) = inputs(n=4, c_in=32, c_out=48, t=9, v=25, k=3)
    tensors = [t.detach().to(dtype) for t in tensors]
    exact = kernels.masked_graph_conv(*(t.double() for t in tensors), backend="reference")

    def error(backend):
        y = kernels.masked_graph_conv(*tensors, support=support, backend=backend)
        return (y.double() - exact).square().mean().sqrt()

    assert error("cpu") <= 1.1 * error("reference")


def test_the_memory_format_of_x_is_kept():
    (x, weight, bias, adjacency), _ = inputs()
    last = kernels.masked_graph_conv(x, weight, bias, adjacency)
    first = kernels.masked_graph_conv(x.contiguous(), weight, bias, adjacency)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert first.is_contiguous()
    torch.testing.assert_close(last, first)


def test_two_runs_are_bit_for_bit_the_same():
    tensors, (index, counts, support) = inputs(
        n=40, c_in=32, c_out=33, t=9, v=17, k=3, dtype=torch.float32, mixed=True
    )

    def run():
        y = kernels.masked_graph_conv(*tensors, index, counts, support, backend="cpu")
        return torch.autograd.grad(y.square().sum(), tensors)

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    first, *others = [run() for _ in range(4)]
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


def test_a_call_past_the_checks_of_python_stays_within_its_memory():
    (x, weight, bias, adjacency), _ = inputs()
    op = torch.ops.msclr.graph_conv
    for wrong in (
        (weight[:, :2], adjacency),
        (weight[:5], adjacency),
        (weight, adjacency[..., 1:]),
    ):
        with pytest.raises(RuntimeError, match="(weight|adjacency) must"):
            op(x.detach(), wrong[0].detach(), None, wrong[1].detach())


def test_the_operator_in_triton_has_the_compiled_one_s_schema():
    for name in ("graph_conv", "graph_conv_backward"):
        compiled = getattr(torch.ops.msclr, name).default._schema
        triton = getattr(torch.ops.msclr, name.replace("conv", "conv_triton")).default._schema
        assert str(triton).replace("_triton", "") == str(compiled)
