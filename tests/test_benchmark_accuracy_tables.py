"""Tables of accuracies: what their rows are and how they are sorted."""

from __future__ import annotations

import json

from benchmarks.accuracy import tables as rows


def test_the_headline_marks_what_an_encoder_never_saw():
    def run(**means):
        return {"figures": {k: {"mean": v, "std": 1.0, "values": [v, v]} for k, v in means.items()}}

    one = {"lbfgs A": 60.0, "lbfgs B derive": 50.0, "lbfgs C": 1.0, "lbfgs ensemble": 62.0}
    one |= {"mirrored lbfgs ensemble": 66.0}
    one |= {"linear A": 9.0, "lbfgs A to B": 9.0, "ensemble": 9.0}
    other = {"lbfgs A derive": 40.0, "lbfgs B": 55.0}
    labels = {"linear A": 70.0, "linear B": 71.0, "ensemble": 72.0}
    runs = {"one": run(**one), "other": run(**other), "supervised": run(**labels)}
    assert rows.headline({"runs": runs}) == [
        ["trained on", "A", "B", "ensemble", "with mirror images"],
        ["one", "60.0 ± 1.0", "50.0 ± 1.0 *unseen*", "62.0 ± 1.0", "66.0 ± 1.0"],
        ["other", "40.0 ± 1.0 *unseen*", "55.0 ± 1.0", "", ""],
        ["supervised", "70.0 ± 1.0", "71.0 ± 1.0", "72.0 ± 1.0", ""],
    ]
    del runs["one"]["figures"]["mirrored lbfgs ensemble"]
    assert rows.headline({"runs": runs})[0] == ["trained on", "A", "B", "ensemble"]


def test_figures_are_sorted_with_the_random_encoder_in_brackets():
    def cell(mean):
        return {"mean": mean, "std": 2.0, "values": [mean, mean]}

    names = ("ensemble", "1nn A", "lbfgs A", "A to B", "linear A", "lbfgs A to B", "random 1nn A")
    run = {"figures": {k: cell(10.0 * i) for i, k in enumerate(names)}}
    table = rows.accuracies({"runs": {"one": run | {"seeds": [0], "steps": 2, "seconds": 1.0}}})
    assert [row[0] for row in table[1:-2]] == [
        "linear A", "lbfgs A", "1nn A", "A to B", "lbfgs A to B", "ensemble"
    ]  # fmt: skip
    assert dict(map(tuple, table))["1nn A"] == "10.0 ± 2.0 (60.0)"


def test_figures_with_mirror_images_have_a_table_of_their_own():
    cell = {"mean": 1.0, "std": 0.0, "values": [1.0, 1.0]}
    mirrored = {"mirrored lbfgs A": cell | {"mean": 3.0}, "random mirrored lbfgs A": cell}
    about = {"seeds": [0], "steps": 2, "seconds": 1.0}
    runs = {"old": {"figures": {"lbfgs A": cell}}, "new": {"figures": {"lbfgs A": cell} | mirrored}}
    result = {"runs": {name: run | about for name, run in runs.items()}}
    assert [row[0] for row in rows.accuracies(result)[1:-2]] == ["lbfgs A"]
    assert rows.mirrored(result) == [["figure", "new (1 seed)"], ["lbfgs A", "3.0 ± 0.0 (1.0)"]]


def test_people_left_out_are_averaged_over_encoders(tmp_path):
    def kinds(plain, mirrored):
        return {
            "plain": {"1": {"A": plain}, "3": {"A": 0.0}},
            "mirrored": {"1": {"A": mirrored}, "3": {"A": 10.0}},
        }

    result = {"encoders": {"one": kinds(50.0, 70.0), "other": kinds(60.0, 90.0)}}
    assert rows.left_out(result) == [
        ["person left out", "A: plain / mirrored"],
        ["1", "55.0 / 80.0"],
        ["3", "0.0 / 10.0"],
        ["mean", "27.5 / 45.0"],
    ]
    (tmp_path / "body.json").write_text(json.dumps(result))
    assert rows.left_out_of("frame", tmp_path) == [
        ["frame", "encoders", "A: plain / mirrored"],
        ["body", "2", "27.5 / 45.0"],
    ]


def test_one_seed_has_no_interval():
    one = {"of": "a", "over": "b", "seeds": [0], "mean": 1.0, "low": 1.0, "high": 1.0}
    two = one | {"seeds": [0, 1], "low": 0.5, "high": 1.5}
    table = rows.differences({"differences": [one, two]})
    assert [row[2:] for row in table[1:]] == [["1", "+1.0", ""], ["2", "+1.0", "+0.5 to +1.5"]]


def test_ways_of_training_are_averaged_over_seeds():
    def kind(*ensemble):
        return {"ensemble": list(ensemble)}

    run = {"seeds": [0, 1], "plain": kind(50.0, 60.0), "mirrored": kind(70.0, 90.0)}
    assert rows.mirrored_views({"runs": {"as it is": run}}) == [
        ["trained", "seeds", "plain / mirrored"],
        ["as it is", "2", "55.0 / 80.0"],
    ]
