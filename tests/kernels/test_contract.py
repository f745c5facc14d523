"""Every operator on every backend, code path and dtype, held against the reference in float64."""

from __future__ import annotations

import ctypes
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch.func import jvp

from msclr.kernels._backend import interpreted
from tests.kernels import contract as kit
from tests.kernels.contract import BACKENDS, CONTRACTS, HALVES, Backend, arguments_of, results_of
from tests.kernels.interpreter import bfloat16_to_nearest

OPERATORS = list(CONTRACTS.values())


@pytest.fixture(params=BACKENDS, ids=str)
def backend(request):
    with request.param.chosen():
        yield request.param


# What Python does is the same for every code path of the compiled operators.
one_code_path = pytest.mark.parametrize(
    "backend", [Backend("cpu"), Backend("triton"), Backend("cuda")], indirect=True, ids=str
)


@pytest.fixture(params=OPERATORS, ids=lambda c: c.name)
def operator(request, backend):
    if backend.name not in request.param.run.backends:
        pytest.skip(f"{request.param.name} has no such backend")
    return request.param


def usual(operator, backend, dtype=torch.float32):
    return arguments_of(operator, operator.usual, dtype, backend.device)


def cases_of(operator):
    """The usual case, and the large ones where they do not take minutes."""
    return [operator.usual, *([] if interpreted() else sorted(operator.cases.LARGE))]


def op_of(operator, backend):
    suffix = "_triton" if backend.name == "triton" else ""
    return getattr(torch.ops.msclr, operator.name + suffix)


def each_case():
    return [
        pytest.param(contract, case, id=f"{contract.name}: {case}")
        for contract in OPERATORS
        for case in contract.cases.CASES
    ]


@pytest.mark.parametrize(("contract", "case"), each_case())
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_results_and_gradients_are_the_references(contract, case, dtype, backend):
    if backend.name not in contract.run.backends or dtype not in contract.dtypes:
        pytest.skip("not of this operator")
    if interpreted() and case in contract.cases.LARGE:
        pytest.skip("too large for the interpreter")
    arguments = arguments_of(contract, case, dtype, backend.device)
    exact = kit.in_float64(contract, arguments)
    found, plain = (results_of(contract, b, arguments) for b in (backend.name, "reference"))
    assert found.keys() == exact.keys()
    for name, result in found.items():
        if result.is_floating_point():
            assert result.isfinite().all(), f"{name} is not finite"
            allowed = 1e-9
            if dtype == torch.float32:
                allowed = contract.conditioning * 2e-6 + 4 * kit.error_of(plain[name], exact[name])
                # The log-sum-exp is rounded between the passes, to digits of the largest logit.
                allowed += 2**-23 * contract.largest_logit(arguments)
            assert kit.error_of(result, exact[name]) <= allowed, name
        elif dtype == torch.float64:
            assert torch.equal(result, exact[name]), name


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_precision_is_no_further_off_than_pytorch(operator, backend, dtype):
    for case in {operator.halves, *cases_of(operator)[1:]}:
        arguments = arguments_of(operator, case, dtype, backend.device)
        exact = kit.in_float64(operator, arguments)
        plain = results_of(operator, "reference", arguments)
        with bfloat16_to_nearest():
            found = results_of(operator, backend.name, arguments)
        assert all(found[name].dtype == plain[name].dtype for name in exact)
        if backend.name == "triton":  # whose products take rounded weights, as PyTorch's do in half
            with operator.half_throughout():
                rounded = results_of(operator, "reference", arguments)
            plain |= {n: r for n, r in rounded.items() if n not in ("result 0", "result 2")}
        for name, wanted in exact.items():
            if wanted.is_floating_point():
                ours, theirs = (kit.rms_of(r[name], wanted) for r in (found, plain))
                floor = 1e-6 * wanted.abs().max().item()  # of what is float32 all the same
                assert ours <= 1.1 * theirs + floor, f"{case}: {name}"


@one_code_path
def test_opcheck_holds(operator, backend):
    arguments = usual(operator, backend)
    leaves = {name: getattr(arguments, name) for name in operator.gradients}
    leaves = {name: t.requires_grad_() for name, t in leaves.items() if t is not None}
    torch.library.opcheck(op_of(operator, backend), tuple(arguments._replace(**leaves)))


@pytest.mark.unsanitized
@one_code_path
def test_it_is_one_node_in_compile_and_export(operator, backend):
    if backend.device == "cuda" or backend.name == "triton":
        pytest.skip("traced alike: the operators differ in their names alone")
    arguments = usual(operator, backend)
    first = arguments[0].requires_grad_(operator.differentiable)

    class Model(torch.nn.Module):
        def forward(self, first):
            return operator.public(type(arguments)(first, *arguments[1:]), backend=backend.name)

    expected = Model()(first)
    compiled = torch.compile(Model(), fullgraph=True, backend="aot_eager")(first)
    torch.testing.assert_close(compiled, expected)
    if operator.differentiable:
        gradients = [torch.autograd.grad(y.square().sum(), first) for y in (compiled, expected)]
        torch.testing.assert_close(*gradients)
    program = torch.export.export(Model(), (first.detach(),))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert sum(f"msclr.{operator.name}" in name for name in names) == 1


@one_code_path
def test_it_may_be_used_twice_in_one_graph(operator, backend):
    if not operator.differentiable:
        pytest.skip("nothing to differentiate")
    arguments = usual(operator, backend, torch.float64)

    def twice(name):
        leaf = arguments[0].detach().clone().requires_grad_()
        once = kit.run(operator, name, type(arguments)(leaf, *arguments[1:]))["result 0"]
        again = type(arguments)(leaf + once.mean(), *arguments[1:])
        result = kit.run(operator, name, again)["result 0"]
        return torch.autograd.grad(result.square().sum(), leaf)[0]

    torch.testing.assert_close(twice(backend.name), twice("reference"), rtol=1e-9, atol=1e-12)


def backwards(tensor):
    places = range(tensor.dim())[::-1]
    return tensor.permute(*places).contiguous().permute(*places)


MEMORY = {
    "dimensions in reverse": backwards,
    "every second number": lambda t: t.repeat_interleave(2, -1)[..., ::2],
    "a part of longer rows": lambda t: torch.cat([t, t], -1)[..., t.shape[-1] :],
    "rows apart": lambda t: t.repeat_interleave(2, 0)[::2],
    "one row for all": lambda t: t[:1].expand(t.shape),
}


@pytest.mark.parametrize("order", MEMORY)
def test_any_strides_change_nothing(operator, backend, order):
    dtype = torch.float64 if torch.float64 in operator.dtypes else torch.float32
    given = usual(operator, backend, dtype)
    tensors = {n: t for n, t in given._asdict().items() if torch.is_tensor(t) and t.dim()}
    tensors.pop("clips", None)  # contiguous alone
    strided = given._replace(**{n: MEMORY[order](t) for n, t in tensors.items()})
    plain = given._replace(**{n: getattr(strided, n).contiguous() for n in tensors})
    found, expected = (results_of(operator, backend.name, a) for a in (strided, plain))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], msg=name)


def test_a_gradient_may_be_wanted_alone(operator, backend):
    if not operator.differentiable:
        pytest.skip("nothing to differentiate")
    for case in cases_of(operator):
        arguments = arguments_of(operator, case, torch.float64, backend.device)
        every = results_of(operator, backend.name, arguments)
        for name in every.keys() & set(operator.gradients):
            leaf = getattr(arguments, name).detach().requires_grad_()
            results = kit.run(operator, backend.name, arguments._replace(**{name: leaf}))
            (alone,) = torch.autograd.grad(kit.weighted_sum(results), leaf)
            torch.testing.assert_close(alone.cpu(), every[name], msg=f"{case}: {name}")


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_again_gives_the_same_bits(operator, backend, three_threads):
    for case in cases_of(operator):
        arguments = arguments_of(operator, case, torch.float32, backend.device)
        first, *others = (results_of(operator, backend.name, arguments) for _ in range(3))
        assert all(torch.equal(first[name], other[name]) for other in others for name in first)


def test_two_threads_get_what_one_gets(operator, backend):
    if backend.name == "triton":
        pytest.skip("Triton's launches are its own affair")
    given = arguments_of(operator, cases_of(operator)[-1], torch.float32, backend.device)
    halved = type(given)(0.5 * given[0], *given[1:])  # so that memory they shared would show
    jobs = [given, halved] * 8
    alone = [results_of(operator, backend.name, job) for job in jobs[:2]] * 8
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(partial(results_of, operator, backend.name), jobs))
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.unsanitized
@pytest.mark.skipif(sys.platform != "linux", reason="glibc fills memory on request")
def test_scratch_memory_may_hold_anything(operator, backend):
    """malloc hands out bytes of 0x7f, 3e38 as a float, and torch.empty NaN."""
    mallopt, perturb = ctypes.CDLL(None).mallopt, -6
    for case in cases_of(operator):
        arguments = arguments_of(operator, case, torch.float32, backend.device)
        clean = results_of(operator, backend.name, arguments)
        mallopt(perturb, 0x80)
        try:
            for size in (1000, 10**7):  # the latter is mapped
                assert (torch.empty(size, dtype=torch.uint8) == 0x7F).all()
            torch.use_deterministic_algorithms(True)  # and torch.utils.deterministic fills
            dirty = results_of(operator, backend.name, arguments)
        finally:
            mallopt(perturb, 0)
            torch.use_deterministic_algorithms(False)
        assert all(torch.equal(clean[name], dirty[name]) for name in clean), case


@one_code_path
def test_autocast_does_what_it_says(operator, backend):
    arguments = usual(operator, backend)
    plain = results_of(operator, backend.name, arguments)
    with torch.autocast(backend.device, torch.bfloat16):
        cast = results_of(operator, backend.name, arguments)
    if operator.autocast:
        assert cast["result 0"].dtype == torch.bfloat16
        for name, expected in plain.items():
            assert cast[name].dtype == (expected.dtype if name != "result 0" else torch.bfloat16)
            assert kit.error_of(cast[name], expected.double()) < 2**-6, name
    else:
        assert all(torch.equal(plain[name], cast[name]) for name in plain)


@one_code_path
def test_derivatives_that_are_not_there_are_an_error(operator, backend):
    arguments = usual(operator, backend)
    first = arguments[0].detach()

    def run(x):
        return kit.run(operator, backend.name, type(arguments)(x, *arguments[1:]))["result 0"]

    with pytest.raises(NotImplementedError, match="no forward-mode derivatives"):
        jvp(run, (first,), (torch.ones_like(first),))
    if operator.differentiable:
        leaf = first.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(run(leaf).square().sum(), leaf, create_graph=True)
        with pytest.raises(NotImplementedError, match="no second derivatives"):
            gradient.sum().backward()
