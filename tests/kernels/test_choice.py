"""Which backend runs: argument, override, verdict, default; while tracing and capturing, too."""

from __future__ import annotations

import timeit
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from msclr import kernels
from msclr.kernels import _choice, _qualify
from msclr.kernels._operator import Operator
from msclr.kernels.graph_conv.operator import masked_graph_conv
from msclr.kernels.info_nce import operator as info_nce
from msclr.kernels.multi_view import operator as multi_view
from tests.needs import needs_operators

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
X = torch.ones(3)


def few_rows(arguments):
    return "" if len(arguments[0]) < 4 else "four rows and more"


@pytest.fixture
def operator(monkeypatch):
    """An operator whose backends, on a CPU, have to qualify as a GPU's do: it says who ran."""
    monkeypatch.setattr(_choice, "qualifying_types", ("cpu",))
    monkeypatch.setattr(_choice, "_adopted", {})
    monkeypatch.setattr(_choice, "_said", set())
    monkeypatch.setattr(_qualify, "stored", lambda device: ({}, False))
    monkeypatch.delenv("MSCLR_BACKEND", raising=False)
    return Operator(
        "chosen",
        reference=lambda x: x + 1,
        fast=lambda x: x + 2,
        second=lambda x: x + 3,
        cpu=lambda x: x + 4,
        supports={"fast": few_rows},
    )


REFERENCE, FAST, SECOND, COMPILED = 2, 3, 4, 5


def ran(operator, x=X, backend=None):
    return int(operator(backend, (x,))[0])


def adopt(*names, family="single"):
    _choice.adopt(CPU, {("chosen", family): names})


@needs_operators
def test_an_argument_goes_before_a_context_that_before_the_environment_that_before_verdicts(
    operator, monkeypatch
):
    assert ran(operator) == REFERENCE
    adopt("fast", "second")
    assert ran(operator) == FAST
    monkeypatch.setenv("MSCLR_BACKEND", "cpu")
    assert ran(operator) == COMPILED
    with kernels.use_backend("reference"):
        assert ran(operator) == REFERENCE
        with kernels.use_backend("auto"):
            assert ran(operator) == FAST
        assert ran(operator, backend="cpu") == COMPILED
    assert ran(operator) == COMPILED
    monkeypatch.setenv("MSCLR_BACKEND", "auto")
    assert ran(operator) == FAST


def test_what_a_backend_does_not_take_goes_to_the_next(operator):
    adopt("fast", "second")
    assert ran(operator, torch.ones(4)) == SECOND
    assert ran(operator) == FAST
    adopt("fast")
    assert ran(operator, torch.ones(4)) == REFERENCE


def test_verdicts_are_of_one_family_of_dtypes(operator):
    adopt("fast")
    assert ran(operator, X.double()) == ran(operator, X.bfloat16()) == REFERENCE
    adopt("fast", family="half")
    assert ran(operator, X.bfloat16()) == ran(operator, X.half()) == FAST
    assert ran(operator) == REFERENCE


def test_an_operator_without_the_backend_that_is_asked_for_takes_its_default(monkeypatch):
    chosen = Operator("chosen", reference=lambda x: x + 1)
    monkeypatch.setenv("MSCLR_BACKEND", "reference")
    assert ran(chosen) == REFERENCE
    if not kernels.backends()["cpu"]:
        with kernels.use_backend("cpu"):
            assert ran(chosen) == REFERENCE


@pytest.mark.skipif(not kernels.backends()["cuda"], reason="it can run here")
def test_a_backend_that_cannot_run_here_is_an_error_and_no_other_runs(monkeypatch):
    q = torch.nn.functional.normalize(torch.ones(2, 2, 4), dim=-1)
    with pytest.raises(ValueError, match="backend 'cuda' cannot run here: needs an NVIDIA GPU"):
        kernels.use_backend("cuda").__enter__()
    monkeypatch.setenv("MSCLR_BACKEND", "triton")
    with pytest.raises(ValueError, match="backend 'triton' of info_nce cannot run here: "):
        kernels.info_nce(q, q[0], None)
    monkeypatch.setenv("MSCLR_BACKEND", "trition")
    with pytest.raises(ValueError, match="MSCLR_BACKEND must be one of reference, .*'trition'"):
        kernels.info_nce(q, q[0], None)
    with pytest.raises(ValueError, match="backend must be one of .* or auto, got 'trition'"):
        kernels.use_backend("trition").__enter__()


def test_a_backend_does_not_take_tensors_of_another_device(operator, monkeypatch):
    monkeypatch.setattr(
        "msclr.kernels._operator.backends", lambda: dict.fromkeys(_choice.NAMES, "")
    )
    gpu_alone = Operator("chosen", reference=lambda x: x, triton=lambda x: x)
    gpu_alone.backends.setdefault("triton", lambda x: x)
    monkeypatch.setenv("MSCLR_BACKEND", "triton")
    with pytest.raises(ValueError, match="'triton' of chosen takes tensors on cuda, got cpu"):
        ran(gpu_alone)
    monkeypatch.setattr(_choice, "backends", lambda: dict.fromkeys(_choice.NAMES, ""))
    with pytest.raises(ValueError, match="'cuda' takes tensors on cuda, not on cpu"):
        kernels.check_override("cuda", CPU)


def test_a_context_holds_in_its_thread_alone(operator):
    adopt("fast")
    with kernels.use_backend("reference"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(ran, operator).result() == FAST
        assert ran(operator) == REFERENCE


def test_a_context_ends_with_an_error(operator):
    adopt("fast")
    with pytest.raises(KeyError), kernels.use_backend("reference"):
        raise KeyError
    assert ran(operator) == FAST and _choice._latest is None


# What is not known yet


def test_eager_calls_look_at_the_disk_once_and_say_once_what_is_not_decided(
    operator, monkeypatch, caplog
):
    looks = []
    found = {("chosen", "single"): ("fast",)}
    monkeypatch.setattr(_qualify, "stored", lambda device: looks.append(device) or (found, False))
    assert [ran(operator) for _ in range(3)] == [FAST] * 3
    assert ran(operator, X.half()) == REFERENCE
    assert looks == [CPU]
    (record,) = caplog.records
    assert "msclr.kernels.prepare('cpu')" in record.message


def test_a_capture_runs_the_reference_and_looks_at_nothing(operator, monkeypatch, caplog):
    monkeypatch.setattr(_choice, "_capturing", lambda device: True)
    monkeypatch.setattr(_choice, "_load", None)
    assert [ran(operator) for _ in range(3)] == [REFERENCE] * 3
    assert len(caplog.records) == 1
    monkeypatch.setattr(_choice, "_capturing", lambda device: False)
    found = {("chosen", "single"): ("fast",)}
    monkeypatch.setattr(_choice, "_load", lambda device: _choice._adopted.setdefault(device, found))
    assert ran(operator) == FAST, "what a capture did not know is not remembered"
    monkeypatch.setattr(_choice, "_capturing", lambda device: True)
    assert ran(operator) == FAST


def test_a_stream_that_captures_is_noticed(operator, monkeypatch):
    monkeypatch.setattr(_choice, "qualifying_types", ("cuda",))
    monkeypatch.setattr(_choice, "_load", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert operator.order(GPU, "single") == ("reference",)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_fake_tensor_of_a_gpu_that_is_not_there_takes_the_reference(operator, monkeypatch):
    monkeypatch.setattr(_choice, "qualifying_types", ("cuda",))
    monkeypatch.setattr(_qualify, "stored", None)
    assert operator.order(GPU, "single") == ("reference",)


def test_a_trace_runs_the_reference_says_so_and_is_one_graph(operator, monkeypatch, caplog):
    monkeypatch.setattr(_choice, "_load", None)
    compiled = torch.compile(lambda x: operator(None, (x,)), fullgraph=True, backend="eager")
    assert [int(compiled(X)[0]) for _ in range(2)] == [REFERENCE] * 2
    assert len([r for r in caplog.records if r.name == _choice.logger.name]) == 1
    adopt("fast")
    assert int(compiled(X)[0]) == FAST, "it is traced again once verdicts are there"
    with kernels.use_backend("reference"):
        assert int(compiled(X)[0]) == REFERENCE
    assert int(compiled(X)[0]) == FAST


# What the operators do not take


def test_operators_know_what_their_backends_do_not_take():
    q = torch.zeros(2, 3, 1025)
    misfit = info_nce.info_nce.supports["triton"]
    wide = info_nce.Arguments(q, q[0], q[0], torch.tensor(0.1))
    assert "1..1024 columns" in misfit(wide)
    narrow = info_nce.Arguments(q[..., :8], q[0, :, :8], q[0, :, :8], torch.tensor(0.1))
    assert misfit(narrow) == ""
    assert "top_k must lie in 0..16" in misfit(narrow._replace(top_k=17))
    assert "1..512 columns" in multi_view.multi_view_info_nce.supports["triton"]((q,))
    of_cuda = masked_graph_conv.supports["cuda"]
    assert of_cuda((q.half(),)) == "" and "bfloat16 or float16" in of_cuda((q,))


def test_choosing_again_looks_nothing_up(operator, monkeypatch):
    adopt("fast")
    assert ran(operator) == FAST
    with kernels.use_backend("reference"):
        assert ran(operator) == REFERENCE
    monkeypatch.setattr(_choice, "order", None)
    monkeypatch.setattr("msclr.kernels._operator.backends", None)
    assert ran(operator) == FAST
    with kernels.use_backend("reference"):
        assert ran(operator) == REFERENCE
    seconds = min(timeit.repeat(lambda: operator.choose(None, (X,)), number=1000, repeat=5)) / 1000
    assert seconds < 100e-6  # 3 on an idle machine; a look at a file or a device takes far more
