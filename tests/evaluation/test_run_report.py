"""The page about a run."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from msclr.cli import main
from msclr.config import make_recipe
from msclr.evaluation import evaluate_knn, evaluate_linear, open_run
from msclr.evaluation.run_report import accuracies, read_results, same_layout, write_report
from msclr.training import pretrain
from tests.tiny import LAYOUTS, prepare_tiny, tiny_recipe, tiny_values


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of six steps and its evaluations; the page is written."""
    folder = tmp_path_factory.mktemp("report")
    data = prepare_tiny(folder / "data")
    made = pretrain(tiny_recipe(data, folder / "run", steps=6, lr=0.01))
    run = open_run(made)
    evaluate_linear(run, LAYOUTS[0], epochs=3)
    evaluate_knn(run, LAYOUTS[1])
    write_report(made)
    return made


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.pictures, self.open, self.headings, self.text = [], [], [], ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.pictures += [dict(attributes)] if tag == "img" else []
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open.pop() != tag:
            pass

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def test_a_page_has_all_that_is_known_of_a_run(folder):
    page = Page(folder / "report.html")
    assert page.headings == [
        "What this is",
        "Accuracies",
        "Confusion matrix",
        "Curves",
        "Speed",
        "Embeddings by class",
        "Embeddings by layout",
        "One clip under each convention",
        "Settings",
    ]
    for result in read_results(folder):
        assert result["name"] in page.text and result["command"] in page.text
    for text in ("queue_size", "key_momentum", "6 steps", *LAYOUTS):
        assert text in page.text
    assert len(page.pictures) == 5
    for picture in page.pictures:
        assert (folder / picture["src"]).is_file()
        assert len(picture["alt"]) > 40
    alts = " ".join(picture["alt"] for picture in page.pictures)
    assert "loss goes from" in alts and "same layout for" in alts and "is taken for" in alts


def test_the_first_step_is_not_what_the_loss_is_said_to_come_from(folder):
    losses = re.search(r"loss goes from (\S+) at step (\d+)", (folder / "report.html").read_text())
    assert losses[2] == "2"


def test_results_of_any_protocol_are_in_the_table(folder):
    run = open_run(folder)
    odd = {
        "protocol": "odd", "name": "odd-x", "step": 6, "top1": 12.5, "map": 33.25,
        "recall": {"1": 50.0, "5": 75.0}, "seed": 0, "notes": ["beware"], "confusion": None,
    }  # fmt: skip
    stale = {**odd, "name": "old-x", "step": 3, "command": "msclr evaluate odd X"}
    table, text, commands, notes = accuracies([odd, stale], run)
    assert table[1][:4] == ["odd-x", 12.5, None, None]
    assert table[1][4] == "map 33.25, recall 1: 50, recall 5: 75"
    assert "old-x" in text and "odd-x" not in text
    assert commands[1:] == [["old-x", "msclr evaluate odd X"]] and "old-x: beware." in notes
    assert "msclr evaluate linear" in accuracies([], run)[0]


def test_files_that_are_no_results_are_left_out(tmp_path):
    (tmp_path / "evaluation").mkdir()
    for name, text in (("a", "{"), ("b", "[1]"), ("c", '{"top1": 1}')):
        (tmp_path / "evaluation" / f"{name}.json").write_text(text)
    (tmp_path / "evaluation" / "d.json").write_text(json.dumps({"protocol": "knn"}))
    assert [result["name"] for result in read_results(tmp_path)] == ["d"]


def test_neighbours_of_the_same_layout_are_counted():
    apart = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    assert same_layout(apart, torch.tensor([0, 0, 1, 1])) == 100.0
    assert same_layout(apart, torch.tensor([0, 1, 0, 1])) == 0.0


def test_a_run_whose_data_are_gone_has_a_page_without_them(folder, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    moved = folder.parent / "data"
    moved.rename(folder.parent / "moved")
    try:
        page = Page(write_report(copy))
    finally:
        (folder.parent / "moved").rename(moved)
    assert "The data cannot be shown" in page.text and "Settings" in page.headings
    assert len(page.pictures) == 2


def test_a_run_of_several_data_sets_shows_the_clips_of_each(tmp_path):
    sets = [str(prepare_tiny(tmp_path / name, [name])) for name in LAYOUTS]
    values = tiny_values(tmp_path, tmp_path / "run", steps=2) | {"data": sets}
    page = Page(write_report(pretrain(make_recipe(values))))
    assert "Nothing has been evaluated yet" in page.text
    for data, folder in zip(sets, ("report", "report/1"), strict=True):
        assert f"Embeddings by class of {data}" in page.headings
        assert f"{folder}/clip.png" in [picture["src"] for picture in page.pictures]


def test_the_command_says_where_the_page_is(folder, tmp_path, capsys):
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"report: {folder / 'report.html'}\n"
    assert main(["report", str(tmp_path)]) == 2
    assert "msclr: error:" in capsys.readouterr().err


def test_a_browser_renders_the_page_with_its_pictures(folder, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no chromium is installed")
    shot = tmp_path / "page.png"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,6000"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}"]
    done = subprocess.run(
        [*command, (folder / "report.html").as_uri()], capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-500:]
    from matplotlib.image import imread

    image = imread(shot)[..., :3]
    for colour in ((0x2B, 0x6C, 0xB0), (0xC0, 0x56, 0x21), (0x63, 0xB3, 0xED)):  # loss, clip
        assert (np.abs(image - np.array(colour) / 255).max(axis=2) < 0.02).sum() > 20
    assert html.escape("What this is") in (folder / "report.html").read_text()
