"""The rules of the house: who may import whom, who may print, what an import costs, what can run.

The first are read off the syntax trees, so a module need not be importable to be checked, and
imports inside functions count as well.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from msclr.kernels import _backend

ROOT = Path(__file__).resolve().parents[1]

# What each layer must not know; to a layer not listed, all but the command line is open.
UPPER = {"training", "evaluation", "cli"}
MAY_NOT_IMPORT = {
    "data": {"nn", "methods", *UPPER},
    "nn": {"data", "methods", *UPPER},
    "methods": {"data", *UPPER},
    "__main__": set(),
    "cli": set(),
}
MAY_IMPORT_ONLY = {"errors": set(), "paths": set(), "layouts": {"errors", "paths"}}
KERNELS_MAY_IMPORT = {"torch", "triton", *sys.stdlib_module_names}


def modules() -> Iterator[tuple[str, str]]:
    """Name and source of every module of the package; kernels/ is installed as msclr.kernels."""
    for folder, package in (("msclr", "msclr"), ("kernels", "msclr.kernels")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join([package, *parts]), path.read_text(encoding="utf-8")


def imports(tree: ast.Module, module: str) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of all that a module imports, relative imports resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                base = module.split(".")[: -node.level] + base
            for alias in node.names:
                yield node.lineno, ".".join([*base, alias.name])


def violations(module: str, source: str, public: set[str]) -> list[str]:
    """Every broken rule of a module. `module` ends in .__init__ for a package's own file.

    Args:
        module: dotted name, as ``modules()`` gives it.
        source: its text.
        public: the names in ``msclr.kernels.__all__``.
    """
    tree = ast.parse(source)
    layer = module.split(".")[1]
    found = []
    for line, name in imports(tree, module):
        if problem := import_problem(layer, name, public):
            found.append(f"{module}:{line}: {problem}")
    if layer != "cli":
        found += [f"{module}:{line}: only msclr.cli prints" for line in print_calls(tree)]
    found += [f"{module}:{line}: text without encoding=" for line in bare_text(tree)]
    return found


def import_problem(layer: str, name: str, public: set[str]) -> str:
    """Why a module of this layer must not import this name; empty where it may."""
    root, target, *rest = [*name.split("."), "", ""]
    if root == "kernels":
        return f"{name}: kernels/ is imported as msclr.kernels"
    if layer == "kernels":
        allowed = target == "kernels" if root == "msclr" else root in KERNELS_MAY_IMPORT
        return "" if allowed else f"kernels must not import {name}"
    if root != "msclr" or target in ("", layer):
        return ""
    if target == "kernels" and rest[0] and (rest[1] or rest[0] not in public):
        return f"{name} is no public function of msclr.kernels"
    if layer in MAY_IMPORT_ONLY:
        allowed = target in MAY_IMPORT_ONLY[layer]
    else:
        allowed = target not in MAY_NOT_IMPORT.get(layer, {"cli"})
    return "" if allowed else f"{layer} must not import msclr.{target}"


def print_calls(tree: ast.Module) -> Iterator[int]:
    """Lines that call print()."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            yield node.lineno


def bare_text(tree: ast.Module) -> Iterator[int]:
    """Lines that read or write text in the system's encoding, which differs between systems."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or any(k.arg == "encoding" for k in node.keywords):
            continue
        name = ast.unparse(node.func)
        method = name.rpartition(".")[2] if isinstance(node.func, ast.Attribute) else ""
        text = method in ("read_text", "write_text")
        if name in ("open", "os.fdopen"):
            text = "b" not in open_mode(node, 1, "r")
        elif method == "open":  # of a path; other things that open take no mode first
            text = bool(re.fullmatch("[rwax][t+]*", open_mode(node, 0, "")))
            text |= not node.args and bool(node.keywords)
        elif name.startswith("subprocess."):
            text = any(k.arg in ("text", "universal_newlines") for k in node.keywords)
        if text:
            yield node.lineno


def open_mode(call: ast.Call, place: int, default: str) -> str:
    """The mode of a call that opens a file, where it is written out."""
    mode = next((k.value for k in call.keywords if k.arg == "mode"), None)
    mode = call.args[place] if mode is None and len(call.args) > place else mode
    return str(mode.value) if isinstance(mode, ast.Constant) else default


def public_kernels() -> set[str]:
    """`msclr.kernels.__all__`, without importing it."""
    for node in ast.parse((ROOT / "kernels" / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    raise AssertionError("kernels/__init__.py has no __all__")


def test_dependency_rule_and_printing():
    public = public_kernels()
    found = [line for module, source in modules() for line in violations(module, source, public)]
    assert not found, "\n" + "\n".join(found)


def test_every_layer_is_looked_at():
    layers = {name.split(".")[1] for name, _ in modules()}
    assert layers >= {"kernels", "layouts", "data", "nn", "methods", "training", "evaluation"}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("msclr.kernels.graph_conv.operator", "from msclr.errors import InputError"),
        ("msclr.kernels.graph_conv.operator", "import numpy"),
        ("msclr.kernels.graph_conv.operator", "from ...layouts import get"),
        ("msclr.nn.stgcn", "from kernels import info_nce"),
        ("msclr.nn.stgcn", "from msclr.kernels.graph_conv import masked_graph_conv"),
        ("msclr.nn.stgcn", "import msclr.kernels.graph_conv"),
        ("msclr.nn.stgcn", "from msclr.kernels import _backend"),
        ("msclr.nn.stgcn", "from ..kernels import graph_conv"),
        ("msclr.nn.stgcn", "from msclr import methods"),
        ("msclr.methods.aimclr", "from msclr.data import store"),
        ("msclr.methods.aimclr", "def f():\n    import msclr.training.checkpoint"),
        ("msclr.data.__init__", "from ..nn import STGCN"),
        ("msclr.data.prepare.ntu", "from ...evaluation import knn"),
        ("msclr.layouts.__init__", "from ..data import store"),
        ("msclr.layouts.registry", "import msclr.kernels"),
        ("msclr.training.pretrain", "from msclr.cli import main"),
        ("msclr.config", "from msclr import cli"),
        ("msclr.training.pretrain", "print('step')"),
        ("msclr.kernels._backend", "def f():\n    print('no GPU')"),
        ("msclr.config", "path.read_text()"),
        ("msclr.demo", "(out / 'a').write_text(text)"),
        ("msclr.demo", "open(path)"),
        ("msclr.demo", "open(path, mode='a')"),
        ("msclr.training.log", "path.open('w', newline='')"),
        ("msclr.training.log", "path.open(newline='')"),
        ("msclr.data.prepare.ntu", "subprocess.run(command, text=True)"),
    ],
)
def test_a_planted_violation_is_caught(module, source):
    assert len(violations(module, source, {"info_nce"})) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "msclr.kernels.graph_conv.operator",
            "import math, torch, triton\nfrom . import reference",
        ),
        ("msclr.kernels.graph_conv.operator", "from msclr.kernels._backend import load_library"),
        ("msclr.nn.stgcn", "from msclr import kernels\nfrom msclr.kernels import info_nce"),
        ("msclr.layouts.registry", "from msclr.errors import InputError\nfrom . import layout"),
        ("msclr.layouts.__init__", "from .registry import get"),
        ("msclr.training.pretrain", "from msclr import data, methods, nn"),
        ("msclr.__main__", "from msclr.cli import main"),
        ("msclr.cli", "print('done')"),
        ("msclr.config", "path.read_text(encoding='utf-8')"),
        ("msclr.data.export", "open(path, 'rb'); open(path, mode='wb'); path.open('r+b')"),
        ("msclr.data.export", "archive.open(entry); work.open()"),
    ],
)
def test_what_is_allowed_passes(module, source):
    assert violations(module, source, {"info_nce"}) == []


OPERATORS = sorted(path.parent.name for path in (ROOT / "kernels").glob("*/operator.py"))


@pytest.mark.parametrize("name", OPERATORS)
def test_two_steps_lead_from_a_public_function_to_each_kernel(name):
    """The function calls the operator, whose file names the code of each backend."""
    folder = ROOT / "kernels" / name
    public, declared = (
        (folder / file).read_text(encoding="utf-8") for file in ("__init__.py", "operator.py")
    )
    if "__all__" not in public:  # a part of another operator
        return
    assert re.search(r"\boperator\.\w+\(backend, ", public)
    backends = re.findall(r"(\w+)=torch\.ops\.msclr\.\w+,  # (\S+)", declared)
    assert "cpu" in dict(backends)
    for backend, file in backends:
        code = ROOT / file if "/" in file else folder / file
        assert code.is_file(), f"{backend} of {name}: there is no {file}"
        assert str(code.relative_to(ROOT)) in public, f"{name}'s docstring does not name {file}"


def test_a_schema_is_written_once():
    """In Python; C++ implements it."""
    sources = [p for p in (ROOT / "csrc").rglob("*.*") if p.suffix in (".cpp", ".cu", ".h")]
    assert OPERATORS and not [p for p in sources if "m.def(" in p.read_text(encoding="utf-8")]


def test_every_folder_of_modules_is_a_package():
    """setup.py finds packages by their __init__.py: without one a folder is left out."""
    folders = {path.parent for top in ("msclr", "kernels") for path in (ROOT / top).rglob("*.py")}
    without = [str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").is_file()]
    assert without == []


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import msclr", "torch matplotlib sklearn scipy numpy"),
        ("from msclr.layouts import names; names()", "torch"),
        ("from msclr.data.skeleton import parse_skeleton as p; p(b'0', '')", "torch"),
        ("import msclr.evaluation.report", "matplotlib sklearn"),
    ],
)
def test_what_needs_no_heavy_library_loads_none(code, heavy):
    code = f"import sys; {code}; print([m for m in {heavy.split()} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_library_is_a_reason_and_no_error(tmp_path):
    assert "not installed" in _backend._load(tmp_path / "_C.so")


def test_a_library_that_does_not_load_is_a_reason_and_no_error(tmp_path):
    (tmp_path / "_C.so").write_bytes(b"no library")
    assert "do not load" in _backend._load(tmp_path / "_C.so")


@pytest.mark.skipif(not _backend.load_library(), reason="msclr is installed without its library")
def test_the_library_defines_the_operators():
    for name in ("graph_conv", "graph_conv_backward", "info_nce"):
        assert getattr(torch.ops.msclr, name).default._schema.name == f"msclr::{name}"


@pytest.mark.parametrize(
    ("cuda", "available", "capability", "reason"),
    [
        (None, False, None, "a PyTorch built for CUDA"),
        ("13.0", False, None, "PyTorch finds none"),
        ("13.0", True, (7, 5), "this one is sm_75"),
        ("13.0", True, (8, 0), ""),
        ("13.0", True, (9, 0), ""),
    ],
)
def test_gpu_backends_say_what_they_need(monkeypatch, cuda, available, capability, reason):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    for name in ("triton", "cuda"):
        assert reason in _backend.backends()[name]
        assert ("NVIDIA GPU" in _backend.backends()[name]) == bool(reason)


def test_the_reference_runs_everywhere():
    assert list(_backend.backends()) == ["reference", "cpu", "triton", "cuda"]
    assert _backend.backends()["reference"] == ""
