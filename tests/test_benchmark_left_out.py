"""Classifiers with each training person left out in turn."""

from __future__ import annotations

import json
import sys

import torch

from benchmarks.accuracy import left_out
from msclr.data import prepare_arrays
from msclr.evaluation import fit_linear, open_run
from msclr.evaluation.splits import features_of
from msclr.training import pretrain
from tests.tiny import FRAMES, LAYOUTS, TRAIN, VAL, tiny_clips, tiny_recipe

WHOSE = [f"{1 + clip % 3}" for clip in range(TRAIN)]


def test_the_classifier_has_not_seen_the_person(tmp_path, monkeypatch):
    names = [f"s0{whose}_c{clip}" for clip, whose in enumerate(WHOSE + ["4"] * VAL)]
    data = tmp_path / "data"
    prepare_arrays(data, **tiny_clips(), names=names, frames=FRAMES)
    run = pretrain(tiny_recipe(data, tmp_path / "run", steps=2))
    options = "--data", str(data), "--subject", r"s(\d+)_", "--out", str(tmp_path / "out.json")
    monkeypatch.setattr(sys, "argv", ["left_out", str(run), *options])
    asked_for = []

    def noted(*split, **how):
        asked_for.append(split)
        return fit_linear(*split, **how)

    monkeypatch.setattr(left_out, "fit_linear", noted)
    left_out.main()
    found = json.loads((tmp_path / "out.json").read_text())["encoders"]["run"]
    for kind, mirror in (("plain", False), ("mirrored", True)):
        f = {name: features_of(open_run(run), name, mirror=mirror) for name in LAYOUTS}
        for person, top1 in found[kind].items():
            asked = torch.tensor([whose == person for whose in WHOSE])
            assert list(top1) == [*LAYOUTS, "ensemble"]
            for name in LAYOUTS:
                x, y, val, val_y, _ = asked_for.pop(0)
                assert x.equal(f[name].train[~asked]) and val.equal(f[name].train[asked])
                assert y.equal(f[name].train_labels[~asked])
                assert val_y.equal(f[name].train_labels[asked])
    assert list(found["plain"]) == ["1", "2", "3"] and not asked_for
