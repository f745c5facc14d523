"""Pickles: what numpy and Python write is read, by every protocol; all else is refused by name."""

from __future__ import annotations

import mmap
import os
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest

from msclr.data.prepare._safe_pickle import read_pickle
from msclr.errors import InputError

ARRAYS = {
    "float16": np.arange(24, dtype="f2").reshape(2, 3, 4),
    "fortran": np.asfortranarray(np.arange(6, dtype="f4").reshape(2, 3)),
    "strided": np.arange(20.0)[::3],
    "big-endian": np.arange(5, dtype=">f8"),
    "bytes": np.arange(256, dtype="u1"),
    "bool": np.array([True, False]),
    "int64": np.array([[-1], [2**40]]),
    "text": np.array(["a", "ä€"]),
    "old text": np.array([b"ab", b"c"]),
    "empty": np.zeros((0, 3), "f4"),
    "number": np.array(2.5),
}
CONTENT = {
    "lists": [["S001C001", "ä€"], (1, -(2**70), 2.5, True, None)],
    "sets": [{1, 2}, frozenset("ab")],
    "bytes": [b"", b"\x00\xff", bytearray(b"xy")],
    "numbers": [np.int64(7), np.float32(0.5), np.str_("text"), np.bool_(True)],
}


def load(tmp_path, data: bytes):
    path = tmp_path / "file.pkl"
    path.write_bytes(data)
    return read_pickle(path)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_protocol(tmp_path, protocol):
    data = pickle.dumps(ARRAYS, protocol)
    read, by_pickle = load(tmp_path, data), pickle.loads(data)
    assert list(read) == list(ARRAYS)
    for key, wanted in by_pickle.items():
        got = np.asarray(read[key])
        np.testing.assert_array_equal(got, wanted, strict=True)


@pytest.mark.parametrize("protocol", range(6))
def test_long_arrays_and_bytes_stay_whole_and_shared(tmp_path, protocol):
    """What is long stays in the file; both forms of the same array, aligned or not."""
    rng = np.random.default_rng(0)
    array = rng.normal(size=(7, 30, 25, 3)).astype("f4")
    content = {"a": array, "again": [array], "odd": b"x" * 4097, "pair": (array.T, bytearray(5000))}
    content["small"] = [rng.normal(size=3), {"deep": (np.asfortranarray(array[0]), "y" * 5000)}]
    content["itself"] = content
    read = load(tmp_path, pickle.dumps(content, protocol))
    assert read["itself"] is read and read["again"][0] is read["a"]
    for got, wanted in (
        (read["a"], array),
        (read["pair"][0], array.T),
        (read["small"][0], content["small"][0]),
        (read["small"][1]["deep"][0], array[0]),
    ):
        np.testing.assert_array_equal(got, wanted, strict=True)
    assert read["odd"] == content["odd"] and read["pair"][1] == bytes(5000)
    assert read["small"][1]["deep"][1] == "y" * 5000
    if protocol > 2:
        assert isinstance(read["a"].base, mmap.mmap)


@pytest.mark.parametrize("protocol", range(6))
def test_containers_and_numbers_of_every_protocol(tmp_path, protocol):
    assert load(tmp_path, pickle.dumps(CONTENT, protocol)) == CONTENT


@pytest.mark.parametrize("protocol", range(4))
@pytest.mark.parametrize(
    ("now", "then"), [("numpy._core", "numpy.core"), ("numpy.core", "numpy._core")]
)
def test_names_of_numpy_1_and_2(tmp_path, protocol, now, then):
    content = [ARRAYS["float16"], np.float32(0.5)]
    data = pickle.dumps(content, protocol).replace(now.encode(), then.encode())
    first, second = load(tmp_path, data)
    np.testing.assert_array_equal(first, content[0])
    assert second == content[1]


def test_one_array_in_two_places_stays_one(tmp_path):
    array = np.arange(3.0)
    first, second = load(tmp_path, pickle.dumps([array, array]))
    assert first is second


def test_text_of_python_2(tmp_path):
    data = b"((lp0\nS'S001C001'\np1\naS'caf\\xe9'\np2\na(lp3\nI3\naL4L\natp4\n."
    assert load(tmp_path, data) == (["S001C001", "café"], [3, 4])


def test_an_array_of_python_2(tmp_path):
    """Byte strings, which Python 3 reads as text, wherever Python 2's numpy wrote them."""
    wanted = np.array([1.5, -3e30, 0.1], "<f4")
    data = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x03\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x0c"
        + wanted.tobytes()
        + b"tb."
    )
    np.testing.assert_array_equal(load(tmp_path, data), wanted)


# What would do harm


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def refuse(tmp_path, data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path, data)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "file.pkl") in str(caught.value)


@pytest.mark.parametrize("protocol", range(6))
def test_a_command_is_not_run(tmp_path, protocol):
    victim = tmp_path / "written"
    data = pickle.dumps({"split": [Calls(os.system, f"touch {victim}")]}, protocol)
    refuse(tmp_path, data, r"asks for (posix|nt)\.system; only numbers, text")
    assert not victim.exists()
    pickle.loads(data)  # and it would have been
    assert victim.exists()


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (eval, "eval"),
        (exec, "exec"),
        (getattr, "getattr"),
        (open, "open"),
        (__import__, "__import__"),
        (type, "type"),
        (np.load, "load"),
        (np.frombuffer, "frombuffer"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_other_functions_are_refused_by_name(tmp_path, function, name, protocol):
    data = pickle.dumps([Calls(function, "1")], protocol)
    refuse(tmp_path, data, rf"asks for \w+[\w.]*\.{name}; only")


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__new__\x93.",  # a dotted name
        b"\x80\x04\x8c\x0fnumpy.core.multiarray\x94\x8c\x0c_reconstruct\x94\x93.",
        b"cnumpy.core.multiarray\narray\n.",
        b"cmsclr.data.prepare._safe_pickle\n_Array\n.",
        b"ccopy_reg\n_reconstructor\n.",
        b"ccollections\ndeque\n.",
        b"\x80\x02\x82\x01.",  # a number that copyreg gives a meaning
        b"Pfile\n.",  # an object of some other store
    ],
)
def test_other_names_are_refused(tmp_path, data):
    with pytest.raises(InputError):
        load(tmp_path, data)


DTYPE = call("numpy", "dtype", b"Vf4\n", b"I00\n", b"I01\n")
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"


@pytest.mark.parametrize("kind", [b"c__builtin__\nset\n", DTYPE, b"Vndarray\n", RECONSTRUCT])
def test_reconstruct_makes_nothing_but_arrays(tmp_path, kind):
    data = call("numpy.core.multiarray", "_reconstruct", kind, b"(I0\nt", b"Vb\n") + b"."
    refuse(tmp_path, data, "an array's class in the pickle is not as numpy writes it")


def test_arrays_of_objects_are_refused(tmp_path):
    harm = Calls(os.system, f"touch {tmp_path / 'written'}")
    refuse(
        tmp_path, pickle.dumps(np.array([harm, 1], object)), "(dtype 'O8'|asks for posix.system)"
    )
    refuse(tmp_path, pickle.dumps(np.array([[1], "a"], object)), "an array of dtype 'O8'")
    refuse(tmp_path, pickle.dumps(np.zeros(2, [("a", "f4"), ("b", "O")])), "of dtype 'V12'")
    refuse(tmp_path, pickle.dumps(np.zeros(2, "M8[s]")), "of dtype 'M8'")
    assert not (tmp_path / "written").exists()


def array(state: bytes) -> bytes:
    """A pickled array with a state of its own."""
    kind = b"cnumpy\nndarray\n"
    return call("numpy.core.multiarray", "_reconstruct", kind, b"(I0\nt", b"Vb\n") + state + b"b."


@pytest.mark.parametrize(
    ("state", "what"),
    [
        (b"(I1\n(I3\nt" + DTYPE + b"I00\nVabcd\nt", "number of bytes"),  # reads past the end
        (b"(I1\n(I-1\nt" + DTYPE + b"I00\nVabcd\nt", "shape and dtype"),
        (b"(I1\nI1\n" + DTYPE + b"I00\nVabcd\nt", "shape and dtype"),
        (b"(I1\n(I1\ntVf4\nI00\nVabcd\nt", "shape and dtype"),
        (b"(I1\n(I1\nt" + DTYPE + b"I00\n(lI1\nat", "an array's data"),  # a list, as objects have
        (b"(I1\n(I1\ntt", "an array's state"),
        (b"N", "an array's state"),
        # A dtype whose state would tell numpy that the bytes are pointers to objects, or too short.
        (
            b"(I1\n(I1\nt"
            + DTYPE
            + b"(I3\nV<\n(DTYPE\ntNNI8\nI8\nI63\ntbI00\nVabcd\nt".replace(b"(DTYPE\nt", b"(t"),
            "a dtype's state",
        ),
    ],
)
def test_forged_arrays_are_refused(tmp_path, state, what):
    refuse(tmp_path, array(state), f"{what} in the pickle is not as numpy writes it")


def test_what_replaces_a_function_cannot_be_changed(tmp_path):
    """BUILD sets attributes: of a function that later loads use, if it could."""
    for state in (b"}Vx\nI1\ns", b"(N}V_function\nI1\nst", b"(N}V__class__\nc__builtin__\nset\nst"):
        for name in (RECONSTRUCT, b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"c__builtin__\nset\n"):
            refuse(tmp_path, name + state + b"b.", "is no whole pickle")
    np.testing.assert_array_equal(load(tmp_path, pickle.dumps(np.arange(3))), np.arange(3))


def test_data_outside_the_file(tmp_path):
    data = pickle.dumps(np.arange(9.0), 5, buffer_callback=[].append)
    refuse(tmp_path, data, "is no whole pickle .*out-of-band")


# Damage


def test_a_file_cut_anywhere_is_refused(tmp_path):
    data = pickle.dumps([CONTENT, ARRAYS["float16"]], 4)
    for end in range(0, len(data) - 1, 3):
        with pytest.raises(InputError):
            load(tmp_path, data[:end])


FUZZ = """
import pickle, random, resource, sys
from pathlib import Path
from msclr.data.prepare._safe_pickle import read_pickle
from msclr.errors import InputError
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))  # a changed length may ask for more
path, rng, refused = Path(sys.argv[1]), random.Random(0), 0
data = path.read_bytes()
for _ in range(800):
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    path.write_bytes(changed)
    try:
        read_pickle(path)
    except InputError as error:
        refused += 1
        assert "\\n" not in str(error)
print(refused)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("protocol", [2, 4])
def test_changed_bytes_end_in_a_refusal_or_a_value(tmp_path, protocol):
    """Never in another exception, nor in a crash."""
    path = tmp_path / "file.pkl"
    arrays = [array for key, array in ARRAYS.items() if key != "bytes"]
    path.write_bytes(pickle.dumps([CONTENT, arrays], protocol))
    command = [sys.executable, "-c", FUZZ, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 200 < int(done.stdout) < 800


def test_no_pickle(tmp_path):
    with pytest.raises(InputError, match="is not a file; give the pickle"):
        read_pickle(tmp_path / "nowhere.pkl")
    refuse(tmp_path, b"", "is no whole pickle")
    refuse(tmp_path, b"name,label\n", "is no whole pickle")
    refuse(tmp_path, b"\x80\x09.", "is no whole pickle .*protocol")
    refuse(tmp_path, b"\x80\x04X" + struct.pack("<I", 1 << 20) + b"abc", "is no whole pickle")
