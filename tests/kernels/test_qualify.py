"""Backends that qualify: what is never adopted, and what it costs the user."""

from __future__ import annotations

import time

import pytest
import torch

from msclr.kernels import _choice
from msclr.kernels._qualify import child, children, store
from msclr.kernels._qualify import verdicts as preparing
from msclr.kernels._qualify.children import Job, Limits, try_all
from msclr.kernels._qualify.judge import Judge, NotRightError, _same_bits, in_dtype
from msclr.kernels._qualify.timing import time_both
from msclr.kernels._qualify.verdicts import decide, rows_of
from tests.kernels import fake_operators
from tests.kernels.fake_operators import FAKE, fake

THREE = in_dtype(fake_operators.make(3), torch.float32)
CPU = torch.device("cpu")
FAKE_AT = "tests.kernels.fake_operators:FAKE"
FEW_AT = "tests.kernels.fake_operators:FEW"
GENEROUS = Limits(total=240, stall=120)  # for a busy machine; nothing waits so long


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def qualifying(monkeypatch):
    """The CPU's backends have to qualify, as a GPU's; the operator that is made up is the only."""
    monkeypatch.setattr(_choice, "qualifying_types", ("cpu",))
    monkeypatch.setattr(_choice, "_adopted", {})
    monkeypatch.setattr(_choice, "_said", set())
    monkeypatch.setattr(preparing, "SUBJECTS", {FAKE_AT: FAKE})
    fake._orders.clear()
    yield
    fake._orders.clear()


def backends_of_fake(monkeypatch, *names):
    kept = {name: fake.backends[name] for name in ("reference", *names)}
    monkeypatch.setattr(fake, "backends", kept)


# Numbers


def test_a_right_backend_is_right_and_its_error_known():
    judge = Judge(FAKE, "right", CPU)
    judge.try_family("single")
    assert judge.allowed > 0 and judge.error <= judge.allowed < 1e-5


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("wrong", "result 0 of 'seven' in float32: off by "),
        ("not_finite", "result 0 of 'three' in float32: not finite"),
        ("wrong_gradient", "x of 'three' in float32: off by "),
        ("restless", "other bits the second time"),
        ("reads_scratch", "result 0 of 'three' in float32: other bits"),
    ],
)
def test_wrong_numbers_are_found(backend, words):
    with pytest.raises(NotRightError, match=words):
        Judge(FAKE, backend, CPU).try_family("single")


def test_cases_that_a_backend_does_not_take_are_left_out():
    tried = []
    Judge(FAKE, "picky", CPU, tried.append).try_family("double")
    assert not any("'three'" in at for at in tried) and any("'seven'" in at for at in tried)


def test_both_are_timed():
    ours, theirs = time_both(FAKE, "slow", torch.float32, CPU)
    assert theirs < 0.01 < ours


@pytest.mark.parametrize(
    ("backend", "decided", "words"),
    [
        ("right", True, "right, "),
        ("wrong", True, "wrong: result 0"),
        ("slow", True, "right, but slower: it takes "),
        ("raises", True, "failed: RuntimeError: an illegal memory access was encountered"),
        ("short_of_memory", False, "there was not enough memory to try it"),
    ],
)
def test_what_a_process_finds(backend, decided, words):
    found, fit_for_more = child._try(Judge(FAKE, backend, CPU), "single", None)
    assert found["reason"].startswith(words) and "\n" not in found["reason"]
    assert found["adopted"] == (backend == "right")
    assert found.get("decided", True) == decided
    assert fit_for_more == (backend not in ("raises", "short_of_memory"))


def test_bits_are_compared_whatever_the_strides():
    one = torch.zeros(4, 1)[::4].T  # a number whose stride is 4
    assert one.is_contiguous() and _same_bits(one, torch.zeros(1, 1))
    assert not _same_bits(torch.tensor(0.0), torch.tensor(-0.0))
    nan = torch.full((2, 3), float("nan"))
    assert _same_bits(nan.T, nan.T.clone()) and _same_bits(torch.zeros(0, 3), torch.zeros(0, 3))


# Processes


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(children, "_PROGRAM", "tests.kernels.fake_child")

    def trials(backend, families=("single",), total=100.0, stall=60.0):
        job = Job("any", backend, families)
        found = try_all([job], "cpu", Limits(total, stall))
        return [found[job, family] for family in families]

    return trials


@pytest.mark.parametrize(
    ("backend", "words"), [("aborts", "died (SIGABRT)"), ("leaves", "died (status 0)")]
)
def test_a_process_that_dies_is_its_backends_fault(stand_in, backend, words):
    single, half, double = stand_in(backend, ("single", "half", "double"))
    assert single.adopted and double.adopted, "the other families are tried all the same"
    assert half.decided and not half.adopted
    assert words in half.reason and "'a case' in float32" in half.reason


def test_a_process_that_hangs_is_ended(stand_in):
    began = time.monotonic()
    single, half = stand_in("hangs", ("single", "half"), stall=3)
    assert time.monotonic() - began < 40
    assert single.adopted and half.decided and not half.adopted
    assert half.reason.startswith("it hung: 3 s without an end at 'a case'")


@pytest.mark.parametrize("backend", ["takes long", "hangs"])
def test_what_time_does_not_allow_is_left_open(stand_in, backend):
    (verdict,) = stand_in(backend, ("half",), total=1.0)
    assert not verdict.adopted and not verdict.decided and "time" in verdict.reason


def test_a_process_that_does_not_start_is_nobodys_fault(stand_in, monkeypatch):
    (verdict,) = stand_in("does not start")
    assert not verdict.adopted and not verdict.decided
    assert "no module named torch" in verdict.reason
    monkeypatch.setattr(children.sys, "executable", "/absent/python")
    (verdict,) = stand_in("right")
    assert not verdict.decided and "/absent/python" in verdict.reason


def test_what_a_kernel_prints_changes_nothing(stand_in):
    (verdict,) = stand_in("prints")
    assert verdict.adopted and verdict.seconds == 0.5


@pytest.mark.unsanitized  # AddressSanitizer ends a process that SIGSEGV would have killed
def test_separate_processes_try_real_operators(qualifying, monkeypatch, caplog):
    backends_of_fake(monkeypatch, "crashes", "right")
    rows = decide(rows_of(CPU, ("half", "single")), CPU, GENEROUS)
    found = {row.key.backend: row.verdict for row in rows}
    assert "died (SIGSEGV) at 'three' in float32" in found["crashes"].reason
    assert found["right"].adopted and "times as fast" in found["right"].reason
    assert [store.load(row.key) for row in rows] == list(found.values())

    monkeypatch.setattr(children, "try_all", None)  # all that follows goes by what is on disk
    preparing.prepare("cpu")
    assert fake.choose(None, THREE) is fake_operators.right
    assert not caplog.records


@pytest.mark.unsanitized
def test_tritons_interpreter_is_a_backend_to_try(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    job = Job(FEW_AT, "triton", ("single",))
    verdict = try_all([job], "cpu", GENEROUS)[job, "single"]
    assert verdict.decided and not verdict.adopted and "right, but slower" in verdict.reason
    assert verdict.error < verdict.allowed


# What runs


def verdicts(monkeypatch, **found):
    """What trials find, without processes: backend -> verdict."""
    calls = []

    def try_all(jobs, device, limits):
        calls.append([job.backend for job in jobs])
        return {(job, f): found[job.backend] for job in jobs for f in job.families}

    backends_of_fake(monkeypatch, *found)
    monkeypatch.setattr(children, "try_all", try_all)
    return calls


def verdict(adopted, reason="right", seconds=None, decided=True):
    return store.Verdict(adopted, reason, seconds=seconds, decided=decided)


def test_the_fastest_that_qualified_runs_and_is_tried_once(qualifying, monkeypatch, caplog):
    calls = verdicts(
        monkeypatch, slow=verdict(True, seconds=2.0), right=verdict(True, seconds=1.0),
        wrong=verdict(False, "wrong: off by 1", 0.1),
    )  # fmt: skip
    said = []
    preparing.prepare("cpu", say=said.append)
    _choice._said.clear()  # as in a process that begins
    preparing.prepare("cpu", say=said.append)
    assert calls == [["slow", "right", "wrong"]]
    assert len(said) == 1 and "at most 30 s" in said[0]
    assert fake.order(CPU, "single") == ("right", "slow", "reference")
    assert fake.choose(None, THREE) is fake_operators.right
    assert not caplog.records, "nobody needs to know of one that others outdo"


def test_none_that_qualified_is_one_line_that_says_why(qualifying, monkeypatch, caplog):
    verdicts(
        monkeypatch,
        wrong=verdict(False, "wrong: off by 1"),
        slow=verdict(False, "not tried", decided=False),
    )
    preparing.prepare("cpu", say=[].append)
    (record,) = caplog.records
    assert record.message == (
        "fake in single precision runs on PyTorch's own operators on cpu: "
        "wrong wrong: off by 1; slow not tried"
    )
    assert fake.choose(None, THREE) is fake_operators.reference


def test_what_was_left_open_is_tried_again_by_the_next_process(qualifying, monkeypatch, caplog):
    calls = verdicts(monkeypatch, right=verdict(False, "no time", decided=False))
    for _ in range(2):
        preparing.prepare("cpu", say=[].append)
    assert calls == [["right"]] and len(caplog.records) == 1
    _choice._said.clear()  # as in a process that begins
    preparing.prepare("cpu", say=[].append)
    assert calls == [["right"]] * 2 and len(caplog.records) == 2
    _choice._said.clear()
    verdicts(monkeypatch, right=verdict(True))
    preparing.prepare("cpu", say=[].append)
    assert fake.order(CPU, "single") == ("right", "reference")


def test_qualification_may_be_off(qualifying, monkeypatch, caplog):
    calls = verdicts(monkeypatch, right=verdict(True))
    preparing.prepare("cpu", say=[].append)
    monkeypatch.setattr(_choice, "_adopted", {})
    fake._orders.clear()
    _choice._said.clear()
    monkeypatch.setenv("MSCLR_QUALIFY", "off")
    preparing.prepare("cpu", say=[].append)
    assert fake.choose(None, THREE) is fake_operators.reference
    assert len(calls) == 1 and not caplog.records
    monkeypatch.setenv("MSCLR_QUALIFY", "of")
    with pytest.raises(ValueError, match="MSCLR_QUALIFY must be on or off, got 'of'"):
        preparing.prepare("cpu")


def test_a_gpu_that_none_can_run_on_is_one_line(qualifying, monkeypatch, caplog):
    monkeypatch.setattr(preparing, "takes_gpu_backends", lambda device: False)
    preparing.prepare("cpu")
    (record,) = caplog.records
    assert "PyTorch's own operators run on cpu" in record.message


def test_a_cpu_has_nothing_to_decide(monkeypatch):
    monkeypatch.setattr(preparing, "rows_of", None)
    preparing.prepare("cpu")
