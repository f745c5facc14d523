"""Frozen features of a run, and what the protocols make of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from msclr import layouts
from msclr.data import prepare_arrays, store
from msclr.data.dataset import SkeletonDataset
from msclr.errors import InputError
from msclr.evaluation import (
    evaluate_ensemble,
    evaluate_knn,
    evaluate_linear,
    features,
    fit_linear,
    knn,
    open_run,
    protocols,
    splits,
)
from msclr.evaluation.splits import data_layouts, features_of
from msclr.training import Pretraining
from msclr.training.distributed import Ranks
from tests.tiny import LAYOUTS, TRAIN, UNSEEN, VAL, prepare_tiny, tiny_clips, tiny_recipe, tree

CPU = torch.device("cpu")


def inputs(data, split, layout, stream="joint"):
    dataset = SkeletonDataset(data, split, [layout])
    index = torch.arange(len(dataset))
    x = dataset.inputs(dataset.clips(layout, index), layout, stream)  # (N, 3, T, V, M)
    return x, dataset.bodies


def test_a_run_is_opened_frozen_with_the_query_encoder_of_its_checkpoint(run, folders):
    saved = torch.load(folders["joint"] / "checkpoint.pt", weights_only=True)["method"]
    for name, value in run.encoder.state_dict().items():
        assert value.equal(saved[f"query.encoder.{name}"]), name
    assert not run.encoder.training
    assert not any(p.requires_grad for p in run.encoder.parameters())
    assert (run.step, run.kind, run.layouts) == (6, "pretrained", list(LAYOUTS))


def test_the_random_encoder_is_that_from_which_the_run_began(folders, data, tmp_path):
    random = open_run(folders["joint"], random=True)
    begun = Pretraining(tiny_recipe(data, tmp_path), Ranks(), CPU).method.query.encoder
    mine, theirs = random.encoder.state_dict(), begun.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(value.equal(theirs[name]) for name, value in mine.items())
    assert (random.step, random.kind) == (0, "random")


@pytest.mark.parametrize("make", [lambda p: p / "absent", lambda p: p], ids=["absent", "empty"])
def test_a_folder_without_a_run_is_refused(make, tmp_path):
    with pytest.raises(InputError, match=r"no run at|no checkpoint in"):
        open_run(make(tmp_path))


def test_features_do_not_depend_on_how_clips_are_batched(run, data, monkeypatch):
    dataset = SkeletonDataset(data, "train", [LAYOUTS[0]])
    whole = features.extract_features(run.encoder, dataset, LAYOUTS[0], "joint")
    monkeypatch.setattr(features, "BATCH", 5)
    parts = features.extract_features(run.encoder, dataset, LAYOUTS[0], "joint")
    assert whole.shape == (TRAIN, 8) and whole.dtype == torch.float32
    torch.testing.assert_close(parts, whole)


def test_features_of_a_seen_layout_are_the_encoders_of_both_splits_in_order(run, data):
    f = features_of(run, LAYOUTS[1])
    for split, mine in (("train", f.train), ("val", f.val)):
        x, bodies = inputs(data, split, LAYOUTS[1])
        with torch.no_grad():
            torch.testing.assert_close(mine, run.encoder(x, LAYOUTS[1], bodies))
    assert f.train_labels.tolist() == [clip % 2 for clip in range(TRAIN)]
    assert (len(f.val), f.classes, f.seen) == (VAL, ["stand", "hug"], True)


def test_an_unseen_layout_gets_the_statistics_of_the_training_clips(run, data):
    before = {k: v.clone() for k, v in run.encoder.state_dict().items()}
    f = features_of(run, UNSEEN, route="attach")
    assert not f.seen and f.train.isfinite().all() and f.train.std(0).min() > 0
    x, bodies = inputs(data, "train", UNSEEN)
    tracks = x.permute(0, 4, 2, 3, 1)[bodies]  # (R, T, V, C), present bodies only
    norm = run.encoder.input_norm[UNSEEN]
    torch.testing.assert_close(norm.running_mean, tracks.flatten(2).mean((0, 1)))
    torch.testing.assert_close(norm.running_var, tracks.flatten(2).flatten(0, 1).var(0))
    after = run.encoder.state_dict()
    assert all(after[k].equal(v) for k, v in before.items())  # of the rest nothing moved
    assert features_of(run, UNSEEN, route="attach").val.equal(f.val)
    assert run.layouts == list(LAYOUTS)


def test_a_random_encoder_gets_all_its_statistics_from_the_training_clips(folders):
    run = open_run(folders["joint"], random=True)
    f = features_of(run, LAYOUTS[0])
    first = run.encoder.blocks[0].gcn_norm
    assert first.running_mean.abs().min() > 0 and first.momentum == 0.1 and not first.training
    features_of(run, LAYOUTS[1])
    assert features_of(run, LAYOUTS[0]).train.equal(f.train)  # nothing of the other layout is left


def test_the_layouts_of_the_pretraining_come_first(run):
    assert data_layouts(run) == [*LAYOUTS, UNSEEN]


def test_other_data_and_another_stream_are_taken_where_given(run, data, tmp_path):
    other = prepare_tiny(tmp_path / "other", [LAYOUTS[0]])
    result = evaluate_knn(run, LAYOUTS[0], other, stream="bone")
    assert (result["data"], result["stream"]) == (str(other), "bone")
    assert not features_of(run, LAYOUTS[0], stream="bone").val.equal(
        features_of(run, LAYOUTS[0]).val
    )
    with pytest.raises(InputError, match=f"has no layout '{UNSEEN}'; it has {LAYOUTS[0]}"):
        features_of(run, UNSEEN, other)


@pytest.fixture
def hashed(monkeypatch):
    """The files that are compared with their checksums, as if in a process of its own."""
    files, sha256 = [], store.sha256
    monkeypatch.setattr(store, "sha256", lambda path: files.append(path) or sha256(path))
    monkeypatch.setattr(splits, "_intact", set())
    return files


def test_all_layouts_of_a_command_are_compared_with_their_checksums_once(run, folders, hashed):
    for layout in data_layouts(run):
        evaluate_knn(run, layout)
    evaluate_ensemble([run, open_run(folders["bone"])])
    assert len(hashed) == len(set(hashed)) == 2 * (3 + len(data_layouts(run)))


def test_data_prepared_again_are_compared_again(run, tmp_path, hashed):
    prepare_tiny(tmp_path / "data", [LAYOUTS[0]])
    features_of(run, LAYOUTS[0], tmp_path / "data")
    shutil.rmtree(tmp_path / "data")
    prepare_tiny(tmp_path / "data", [UNSEEN])
    file = tmp_path / "data" / "val" / f"{UNSEEN}.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    for _ in range(2):
        with pytest.raises(InputError, match="does not match its checksum"):
            features_of(run, UNSEEN, tmp_path / "data")


def test_linear_is_a_classifier_fit_on_the_frozen_features(run):
    f = features_of(run, LAYOUTS[0])
    options = {"seed": 3, "epochs": 5, "lr": 0.1, "batch_size": 16}
    fit = fit_linear(f.train, f.train_labels, f.val, f.val_labels, 2, milestones=[4], **options)
    result = evaluate_linear(run, LAYOUTS[0], **options)
    names = ("top1", "top5", "best_top1", "best_top5", "best_epoch")
    assert {name: result[name] for name in names} == {name: getattr(fit, name) for name in names}
    assert result["per_class"] == dict(zip(["stand", "hug"], fit.per_class, strict=True))
    assert result["top5"] == 100.0  # of two classes
    assert {name: result[name] for name in options} == options
    usual = {"seed": 0, "epochs": 100, "lr": 3.0, "batch_size": 128}
    assert usual.items() <= evaluate_linear(run, LAYOUTS[0]).items()


def test_classes_of_one_name_are_kept_apart_by_their_numbers(run, tmp_path):
    clips = tiny_clips([LAYOUTS[0]])
    prepare_arrays(tmp_path / "data", **clips, frames=8)
    description = tmp_path / "data" / "dataset.json"
    meta = json.loads(description.read_text())
    for names, wanted in (
        (["walk", "walk"], ["walk (0)", "walk (1)"]),
        (["walk", "sit", "walk"], ["walk (0)", "sit", "walk (2)"]),
        (["walk", "walk", "walk (0)"], ["walk (0)", "walk (1)", "walk (0) (2)"]),
    ):
        description.write_text(json.dumps(meta | {"classes": names}))
        result = evaluate_linear(run, LAYOUTS[0], tmp_path / "data", epochs=1)
        assert list(result["per_class"]) == wanted
        ensemble = evaluate_ensemble([run], None, tmp_path / "data", epochs=1)
        assert ensemble["per_class"] == result["per_class"]


def test_a_result_is_kept_with_the_run(run, folders):
    result = evaluate_linear(run, LAYOUTS[0])
    path = folders["joint"] / "evaluation" / f"linear-{LAYOUTS[0]}-joint-pretrained.json"
    assert json.loads(path.read_text()) == result


def test_a_random_encoders_result_does_not_replace_the_pretrained_one(run, folders):
    evaluate_linear(run, LAYOUTS[0])
    before = tree(folders["joint"] / "evaluation")
    evaluate_linear(open_run(folders["joint"], random=True), LAYOUTS[0])
    after = tree(folders["joint"] / "evaluation")
    assert before.items() <= after.items()
    assert f"linear-{LAYOUTS[0]}-joint-random.json" in after


def test_notes_on_the_features_and_the_fit_come_with_the_result(run, monkeypatch):
    def noted(*data, **options):
        return replace(fit_linear(*data, **options), notes=["of the fit"])

    monkeypatch.setattr(splits, "collapse_note", lambda features: f"of {len(features)} clips")
    monkeypatch.setattr(protocols, "fit_linear", noted)
    of_features = f"of {TRAIN} clips"
    assert evaluate_knn(run, LAYOUTS[0])["notes"] == [of_features]
    assert evaluate_linear(run, LAYOUTS[0], epochs=1)["notes"] == [of_features, "of the fit"]
    member = f"{LAYOUTS[0]} (joint, {run.folder})"
    assert evaluate_ensemble([run], [LAYOUTS[0]], epochs=1)["notes"] == [
        f"{member}: {of_features}",
        f"{member}: of the fit",
    ]


def test_nearest_neighbours_are_counted_for_every_k_that_fits(run):
    f = features_of(run, LAYOUTS[0])
    result = evaluate_knn(run, LAYOUTS[0], ks=(3, 20, TRAIN + 1))
    wanted = knn(f.train, f.train_labels, f.val, f.val_labels, 2, [3, 20])
    assert result["by_k"] == {"3": wanted[3], "20": wanted[20]}
    assert result["top1"] == wanted[3]
    with pytest.raises(InputError, match=rf"ks are \[99\]; wanted numbers in 1..{TRAIN}"):
        evaluate_knn(run, LAYOUTS[0], ks=(99,))


def test_an_ensemble_of_one_stream_weighs_its_layouts_alike(run):
    result = evaluate_ensemble([run], [LAYOUTS[0], UNSEEN])
    assert [(m["layout"], m["weight"]) for m in result["members"]] == [
        (LAYOUTS[0], 1.0),
        (UNSEEN, 1.0),
    ]


def test_an_ensemble_of_streams_adds_their_logits_by_the_papers_weights(folders, monkeypatch):
    """Margins of the right class for eight clips, right in the weighted sum for six of them: by
    equal weights, or by any one stream, it would be three, five or seven."""
    margins = {
        "joint": [-1.0] * 5 + [1.0] * 3,
        "motion": [-0.4] * 5 + [0.4] * 2 + [0.0],
        "bone": [1.3] * 5 + [-1.3] * 2 + [-0.5],
    }
    streams = iter(margins)

    def fitted(train, train_labels, val, val_labels, classes, **options):
        margin = torch.tensor(margins[next(streams)])[:, None] / 2
        logits = margin * (2.0 * torch.nn.functional.one_hot(val_labels, classes) - 1)
        fit = fit_linear(train, train_labels, val, val_labels, classes, **options)
        return replace(fit, logits=logits)

    monkeypatch.setattr(protocols, "fit_linear", fitted)
    result = evaluate_ensemble([open_run(folders[stream]) for stream in margins], [LAYOUTS[0]])
    weights = {m["stream"]: m["weight"] for m in result["members"]}
    assert weights == {"joint": 0.6, "motion": 0.4, "bone": 0.6}
    assert result["top1"] == 75.0
    assert sum(result["per_class"].values()) == 2 * 75.0


def test_an_ensemble_over_all_layouts_takes_each_once(run):
    members = evaluate_ensemble([run])["members"]
    assert [m["layout"] for m in members] == [*LAYOUTS, UNSEEN]


def test_data_without_validation_clips_is_refused(run, tmp_path):
    clips = tiny_clips([LAYOUTS[0]]) | {"split": ["train"] * (TRAIN + VAL)}
    prepare_arrays(tmp_path / "data", **clips, frames=8)
    with pytest.raises(InputError, match="30 train and 0 val clips; evaluation needs both"):
        evaluate_linear(run, LAYOUTS[0], tmp_path / "data")


def test_a_layout_under_its_alias_is_the_same_layout(run):
    name, alias = next((n, a) for n in LAYOUTS for a in layouts.get(n).aliases)
    result = evaluate_knn(run, alias)
    assert (result["layout"], result["seen_in_pretraining"]) == (name, True)
    members = evaluate_ensemble([run], [alias, name], epochs=1)["members"]
    assert [m["layout"] for m in members] == [name]
    assert features_of(run, alias).val.equal(features_of(run, name).val)
