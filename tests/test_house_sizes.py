"""The rules of the house on size: short files, functions that fit a screen, few arguments."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("csrc", "kernels", "msclr", "tests", "benchmarks", "examples")
SUFFIXES = (".py", ".h", ".cpp", ".cu", ".cuh")

LINES_OF_A_FILE = 400
LINES_OF_A_FUNCTION = 60  # without its docstring
LINES_OF_A_PROGRAM = 100  # of Triton, which is one loop over tiles and cannot be cut everywhere
ARGUMENTS = 10

# Functions of msclr with more arguments: each is an option of the command of the same name, or a
# piece of what a data set's description holds.
MANY_ARGUMENTS = {
    "evaluate_finetune",
    "evaluate_linear",
    "evaluate_semi",
    "evaluate_transfer",
    "fit_linear",
    "prepare_aimclr",
    "prepare_arrays",
    "prepare_ctrgcn",
    "prepare_ntu",
    "prepare_pyskl",
    "StoreWriter.__init__",
}
# Of msclr too: longer, for checks that name one argument after the other.
LONG = {"prepare_arrays", "prepare_ntu"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources() -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SUFFIXES and "__pycache__" not in path.parts:
                yield path


def functions(path: Path) -> Iterator[tuple[str, Function]]:
    """Every function of a module, methods as CLASS.METHOD."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, Function):
                    method.name = f"{node.name}.{method.name}"
    yield from ((node.name, node) for node in ast.walk(tree) if isinstance(node, Function))


def is_program(function: Function) -> bool:
    """Whether Triton compiles it."""
    return any("jit" in ast.unparse(decorator) for decorator in function.decorator_list)


def lines(function: Function) -> int:
    count = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        count -= function.body[0].end_lineno - function.body[0].lineno + 1
    return count


def arguments(function: Function) -> int:
    of = function.args
    return len(of.posonlyargs) + len(of.args) + len(of.kwonlyargs)


def broken(path: Path) -> Iterator[str]:
    for name, function in functions(path):
        most = LINES_OF_A_PROGRAM if is_program(function) else LINES_OF_A_FUNCTION
        if lines(function) > most and name not in LONG:
            yield f"{name} has {lines(function)} lines"
        free = is_program(function) or path.is_relative_to(ROOT / "kernels")
        free = free or path.is_relative_to(ROOT / "tests")
        if arguments(function) > ARGUMENTS and not free and name not in MANY_ARGUMENTS:
            yield f"{name} has {arguments(function)} arguments"


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_are_short(folder):
    counts = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources()
        if path.is_relative_to(ROOT / folder)
    }
    assert counts and {f: n for f, n in counts.items() if n > LINES_OF_A_FILE} == {}


@pytest.mark.parametrize("folder", FOLDERS[1:])
def test_functions_fit_a_screen_and_take_few_arguments(folder):
    found = {
        str(path.relative_to(ROOT)): list(broken(path))
        for path in sources()
        if path.suffix == ".py" and path.is_relative_to(ROOT / folder)
    }
    assert found and {f: what for f, what in found.items() if what} == {}


def test_a_planted_violation_is_caught(tmp_path):
    body = "\n".join(f"    x = {i}" for i in range(60))
    path = tmp_path / "long.py"
    path.write_text(f"def f({', '.join(f'a{i}' for i in range(11))}):\n{body}\n")
    assert list(broken(path)) == ["f has 61 lines", "f has 11 arguments"]
    path.write_text(f'def f(a):\n    """Says\n    much."""\n{body[: body.rindex("    x")]}')
    assert list(broken(path)) == []


TRANSLATED = re.compile(r"\b(anew|beside|told|so much as|a file an operator|an operator a file)\b")


def prose(path: Path) -> Iterator[str]:
    """A page, or the comments and docstrings of a module."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield text
        return
    yield from re.findall(r"^ *#.*|  # .*", text, re.MULTILINE)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(ast.parse(text)):
        yield (isinstance(node, documented) and ast.get_docstring(node)) or ""


@pytest.mark.parametrize("folder", [*FOLDERS[1:], "docs"])
def test_prose_is_in_plain_english(folder):
    """These words read as translated: again, next to and known say the same."""
    paths = [p for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".md")]
    found = {str(p.relative_to(ROOT)): TRANSLATED.findall(" ".join(prose(p))) for p in paths}
    assert found and {name: words for name, words in found.items() if words} == {}
