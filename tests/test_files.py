"""read_tensors: what is read, what is refused, and that the reason given is the true one."""

from __future__ import annotations

import argparse
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from msclr.errors import InputError
from msclr.files import read_tensors, require_writable

NUMBERS = {
    "best": np.float64(77.7),
    "last": np.float32(0.1),
    "flag": np.bool_(True),
    "epoch": np.int64(-3),
    "byte": np.uint8(200),
    "swapped": np.array(2.5, ">f8")[()],
    "complex": np.complex128(1 + 2j),
}


@pytest.mark.parametrize("zipped", [True, False])
def test_numbers_of_numpy_are_read(zipped, tmp_path):
    path = tmp_path / "file.pt"
    torch.save({"w": torch.ones(2), **NUMBERS}, path, _use_new_zipfile_serialization=zipped)
    read = read_tensors(path, "mend")
    assert read.pop("w").tolist() == [1, 1]
    assert read == NUMBERS
    assert all(type(read[key]) is type(value) for key, value in NUMBERS.items())


def rewritten(path, change):
    """The file with its pickle changed."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records.items():
            archive.writestr(name, change(data) if name.endswith("data.pkl") else data)


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_numbers_of_either_numpy_are_read(module, tmp_path):
    torch.save(NUMBERS, tmp_path / "file.pt")
    own = np.float64.__reduce__(np.float64(1))[0].__module__.encode()
    rewritten(tmp_path / "file.pt", lambda data: data.replace(own + b"\n", module + b"\n"))
    assert read_tensors(tmp_path / "file.pt", "mend") == NUMBERS


class Pickled:
    """Pickled as a call, and a state for its result."""

    def __init__(self, function, arguments, *state):
        self.call = (function, arguments, *state)

    def __reduce__(self):
        return self.call


class Run:
    """Leaves a trace where its pickle is run."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


SCALAR = np.float64(1).__reduce__()[0]


def dtype(code, *state):
    return Pickled(np.dtype, (code, False, True), (3, *state))


MADE_UP = {
    "an object at an address of the file's choice": (
        lambda: dtype("V8", "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0),
        b"A" * 8,
    ),
    "a negative size": (lambda: dtype("S8", "|", None, None, None, -5, 1, 0), b"A" * 8),
    "a text": (lambda: np.dtype("U2"), b"A" * 8),
    "an object": (lambda: np.dtype("O"), b"A" * 8),
    "too few bytes": (lambda: np.dtype("f8"), b"A" * 3),
}


@pytest.mark.parametrize("case", MADE_UP)
def test_a_made_up_number_is_refused_before_numpy_sees_it(case, tmp_path):
    kind, data = MADE_UP[case]
    torch.save({"best": Pickled(SCALAR, (kind(), data))}, tmp_path / "file.pt")
    with pytest.raises(InputError, match=r"file.pt cannot be read: .*; mend$"):
        read_tensors(tmp_path / "file.pt", "mend")


def test_flags_made_up_for_a_number_are_ignored(tmp_path):
    torch.save(
        {
            "best": Pickled(
                SCALAR, (dtype("i8", "<", None, None, None, -1, -1, 63), b"\1" + bytes(7))
            )
        },
        tmp_path / "file.pt",
    )
    assert read_tensors(tmp_path / "file.pt", "mend") == {"best": 1}


class Net(nn.Module):
    """Somebody's model."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Net, r"whole pickled model \(tests.test_files.Net, torch.nn.modules.linear.Linear\)"),
        (
            lambda: nn.Sequential(nn.Linear(2, 2)),
            "whole pickled model .torch.nn.modules.container",
        ),
        (lambda: {"ema": nn.Linear(2, 2)}, "whole pickled model .torch.nn.modules.linear.Linear"),
        (
            lambda: {"args": argparse.Namespace(lr=1)},
            "more than tensors, numbers and texts .argparse.Namespace",
        ),
        (lambda: {"best": np.str_("a")}, "a NumPy value of type 'U1', which is no number"),
        (lambda: {"all": np.zeros(3)}, "more than tensors, .*multiarray._reconstruct"),
    ],
)
def test_other_things_are_named(value, message, zipped, tmp_path):
    path = tmp_path / "file.pt"
    torch.save(value(), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=message) as caught:
        read_tensors(path, "mend")
    assert "\n" not in str(caught.value) and str(caught.value).endswith("; mend")


def test_nothing_in_a_file_is_run(tmp_path):
    torch.save({"w": Run(tmp_path / "trace")}, tmp_path / "file.pt")
    with pytest.raises(InputError, match=r"more than tensors, numbers and texts .*open"):
        read_tensors(tmp_path / "file.pt", "mend")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_damage_is_told_from_other_things(zipped, tmp_path):
    path = tmp_path / "file.pt"
    torch.save({"w": torch.ones(999), **NUMBERS}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="it is truncated or damaged, or no file of"):
            read_tensors(path, "mend")


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no checkpoint at .*none.pt: give the path of a file"):
        read_tensors(tmp_path / "none.pt", "mend")
    with pytest.raises(InputError, match="a folder at .*: give the path of a file"):
        read_tensors(tmp_path, "mend")


def test_a_path_that_cannot_be_written_is_known_before(tmp_path, monkeypatch):
    require_writable(tmp_path / "new" / "file")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"{tmp_path}/file is no folder; choose another file"):
        require_writable(tmp_path / "file" / "new" / "file")
    monkeypatch.setattr("os.access", lambda folder, mode: False)
    with pytest.raises(InputError, match=f"{tmp_path} is read-only; choose another file"):
        require_writable(tmp_path / "new" / "file")


def test_what_the_program_itself_admitted_stays_so(tmp_path):
    torch.save({"all": np.zeros(3), **NUMBERS}, tmp_path / "file.pt")
    reconstruct = np.zeros(3).__reduce__()[0]
    before = torch.serialization.get_safe_globals()
    kinds = {type(np.dtype(code)) for code in ("f8", "f4", "?", "i8", "u1", "c16")}
    with torch.serialization.safe_globals([reconstruct, SCALAR, np.ndarray, np.dtype, *kinds]):
        assert read_tensors(tmp_path / "file.pt", "mend")["best"] == 77.7
    assert set(torch.serialization.get_safe_globals()) == set(before)
