"""The compiled reader of ``.skeleton`` files against the one in Python: the same bits and words."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.data import read as read_benchmark
from msclr.data.skeleton import plain
from msclr.data.skeleton.clip import Skeleton, id_array
from msclr.data.skeleton.read import native
from msclr.errors import InputError
from tests.data import skeleton_files as files

CORPUS_FOLDER = Path(__file__).parents[1] / "fuzz" / "corpus"
CORPUS = sorted(CORPUS_FOLDER.iterdir())
needs_native = pytest.mark.skipif(native is None, reason="the compiled reader is not built")


def bits(clip: Skeleton) -> list:
    arrays = (getattr(clip, name) for name in Skeleton.__slots__)
    return [a if a is None else (a.dtype, a.shape, a.tobytes()) for a in arrays]


def of_python(data: bytes, pixels: bool):
    try:
        return bits(plain.parse(data, "clip", pixels))
    except InputError as error:
        return str(error)


def of_native(data: bytes, pixels: bool, simd: bool):
    result = native.parse(data, pixels, simd)
    if isinstance(result, str):
        return f"clip:{result}"
    ids, *arrays = result
    return bits(Skeleton(id_array(ids), *arrays))


def assert_same(data: bytes) -> None:
    for pixels in (False, True):
        expected = of_python(data, pixels)
        for simd in (False, True):
            assert of_native(data, pixels, simd) == expected


@needs_native
@pytest.mark.parametrize("form", files.FORMS)
@pytest.mark.parametrize("name", files.WHOLE_FILES)
def test_whole_files(name, form):
    data = files.FORMS[form](files.WHOLE_FILES[name]()).encode()
    assert isinstance(of_python(data, True), list)
    assert_same(data)


@needs_native
def test_a_tree(tmp_path):
    names = files.clip_names(40, actions=60)[::5]
    for path in files.write_tree(tmp_path, names, (3, 20), seed=4, pairs=range(1, 61, 2), lost=0.5):
        assert_same(path.read_bytes())


@needs_native
def test_a_file_cut_anywhere():
    text = files.trailing_blanks(files.one_person(1)).encode()
    for cut in range(len(text)):
        assert_same(text[:cut])


@needs_native
@pytest.mark.parametrize(
    "text", files.NUMBERS + files.NO_NUMBERS, ids=lambda text: ascii(text)[:30]
)
def test_numbers_and_no_numbers(text):
    joints = files.with_numbers(files.one_person(1), [text]).encode()
    assert_same(joints)
    assert_same(joints.replace(b" 2\n", f" {text}\n".encode(), 1))


def numbers() -> st.SearchStrategy[str]:
    """Texts of numbers: of floats in many forms, of any digits, and of the grammar at large."""
    floats = st.floats() | st.floats(-10, 10) | st.floats(-0.01, 0.01)
    form = st.sampled_from(["{!r}", "{:.7g}", "{:.9f}", "{:.15g}", "{:.17g}", "{:.25e}", "{:.1f}"])
    digits = st.text("0123456789", max_size=22)
    return (
        st.builds(lambda form, value: form.format(value), form, floats)
        | st.builds("{}{}.{}".format, st.sampled_from(["", "-", "+"]), digits, digits)
        | st.from_regex(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]{1,4})?", fullmatch=True)
        | st.text("0123456789.-+eEnaif_", min_size=1, max_size=12)
    )


@needs_native
@given(st.lists(numbers(), min_size=3, max_size=25))
@settings(deadline=None, max_examples=80)
def test_any_numbers(texts):
    """Many a file, the texts one after the other at x, y, z and the pixels of its joints."""
    usual = files.one_person(1)
    for count in (1, len(texts)):
        assert_same(files.with_numbers(usual, texts[:count], seed=len(texts)).encode())


@st.composite
def changed_files(draw) -> bytes:
    """A file with some of its bytes, fields or lines changed."""
    name = draw(st.sampled_from(["empty frames", "two ids", "numbers"]))
    data = bytearray(SMALL[name])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.sampled_from([0, 1, 2, 10, 100, 2000]))
        new = draw(st.sampled_from(TOKENS) | st.binary(max_size=4))
        data[at : at + size] = new if draw(st.booleans()) else data[: draw(st.integers(0, 200))]
    return bytes(data)


SMALL = {
    "empty frames": files.empty_frames(3).encode(),
    "two ids": files.crlf(files.two_ids(3)).encode(),
    "numbers": files.with_numbers(files.one_person(1), files.NUMBERS).encode(),
}
TOKENS = [t.encode() for t in ("", " ", "\n", "\r\n", "\t", "\v", "25", "1", "0", "-", ".", "nan")]


@needs_native
@given(changed_files())
@settings(deadline=None, max_examples=300)
def test_changed_files(data):
    assert_same(data)


@needs_native
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name[:60])
def test_the_fuzzer_s_corpus(path):
    assert_same(path.read_bytes())


def test_the_corpus_is_there():
    assert len(CORPUS) > 20


@pytest.mark.unsanitized
@pytest.mark.skipif(not shutil.which("g++"), reason="no g++")
def test_the_fuzzer_compiles():
    """Not run here: its head says how."""
    source = CORPUS_FOLDER.parent / "skeleton_fuzz.cpp"
    for own_driver in ([], ["-DLIBFUZZER"]):
        command = ["g++", "-std=c++20", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
        subprocess.run([*command, *own_driver, source], check=True)


@needs_native
def test_fields_across_the_seams():
    """A line is looked at in blocks of 64 and 128 bytes: fields begin and end around them."""
    usual = files.one_person(1).split("\n")
    for width in range(1, 130):
        for fields in (11, 12, 13):
            rest = ["9" * width, *"0" * (fields - 5)]
            for joint in (" ".join(["1.5", "-2.25", "0.125", *rest, "2"]), " " * width + usual[5]):
                assert_same("\n".join([*usual[:5], joint, *usual[6:]]).encode())


@needs_native
def test_threads_read_at_once():
    texts = [files.one_person(30, seed).encode() for seed in range(4)]
    expected = [of_python(text, False) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            assert list(pool.map(lambda t: of_native(t, False, True), texts)) == expected


def test_without_the_module_python_reads_and_says_so(tmp_path):
    (path,) = files.write_tree(tmp_path, files.clip_names(1), frames=2)
    code = f"""
import logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
sys.modules["msclr.data._skeleton_io"] = None
from msclr.data.skeleton import read_skeleton
print(read_skeleton({str(path)!r}).present.sum())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    log, result = done.stdout.splitlines()
    assert log.startswith("DEBUG:msclr.data.skeleton") and "read in Python" in log
    assert result == "2"


@needs_native
def test_the_readers_of_the_benchmark_agree(tmp_path):
    (path,) = files.write_tree(tmp_path, files.clip_names(1), frames=3)
    read_benchmark.check(path)
