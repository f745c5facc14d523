"""Layouts as options name them."""

from __future__ import annotations

import pytest

from msclr import layouts
from msclr.cli import main
from msclr.cli._layouts import layout_names, layout_of
from msclr.errors import InputError

TOML = """name = "of_the_test"
joints = ["hip", "knee"]
bones = [["knee", "hip"]]
center = "hip"
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(TOML)
    return "mine.toml"


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ([], []),
        (["a,b"], ["a", "b"]),
        (["a", " b , c,"], ["a", "b", "c"]),
        (["coco_17,mine.toml"], ["coco_17", "of_the_test"]),
    ],
)
def test_layouts_come_by_commas_repeated_and_from_files(given, names, file):
    assert layout_names(given) == names
    if "of_the_test" in names:
        assert layouts.get("of_the_test").joints == ("hip", "knee")


def test_a_layout_that_is_not_known_or_not_there_is_refused(file):
    with pytest.raises(InputError, match="coco_18"):
        layout_of("coco_18")
    with pytest.raises(InputError, match=r"yours\.toml"):
        layout_names(["yours.toml"])


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "knn", "nowhere", "--layout", "mine.toml", "--layout", "a,b"],
        ["export", "nowhere", "--onnx", "x.onnx", "--layout", "a,mine.toml"],
        ["prepare", "arrays", "nowhere.npz", "--out", "o", "--layout", "mine.toml,coco_17"],
    ],
)
def test_every_command_takes_them(command, file, capsys):
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "nowhere" in error and "layout" not in error
