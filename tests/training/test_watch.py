"""What a run says of itself, and what is measured of its encoder on the way."""

from __future__ import annotations

import pytest
import torch

from msclr import load
from msclr.errors import InputError
from msclr.evaluation import evaluate_knn, open_run
from msclr.nn import load_pretrained
from msclr.training import Pretraining, pretrain
from msclr.training.checkpoint import load_checkpoint
from msclr.training.distributed import Ranks
from msclr.training.header import header, notices
from msclr.training.log import KnnRecord, RunLog, read_knn
from msclr.training.watch import last_keys_cosine
from tests.tiny import LAYOUTS, STEPS_PER_EPOCH, UNSEEN, prepare_tiny, tiny_recipe
from tests.training.runs import assert_same_run, flat

WATCHED = {"knn_every": 4, "tsne_every": 1, "keep_every": 2}
PLAIN = "knn_every", "tsne_every", "keep_every", "steps", "out", "epochs"


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    """A run of 12 steps that nothing is measured of."""
    return pretrain(tiny_recipe(data, tmp_path_factory.mktemp("plain") / "run"))


@pytest.fixture(scope="module")
def heard():
    return []


@pytest.fixture(scope="module")
def watched(data, heard, tmp_path_factory):
    recipe = tiny_recipe(data, tmp_path_factory.mktemp("watched") / "run", **WATCHED)
    return pretrain(recipe, on_knn=heard.append)


def leaves(run):
    state = flat(load_checkpoint(run / "checkpoint.pt"))
    return {k: v for k, v in state.items() if k.rpartition("/")[2] not in PLAIN}


def assert_same_but_for_what_was_asked(run, other):
    mine, theirs = leaves(run), leaves(other)
    assert mine.keys() == theirs.keys()
    for key, leaf in mine.items():
        same = leaf.equal(theirs[key]) if torch.is_tensor(leaf) else leaf == theirs[key]
        assert same, key


def test_a_run_that_is_watched_is_the_run_that_is_not(plain, watched):
    assert_same_but_for_what_was_asked(watched, plain)


def test_the_accuracy_is_that_of_evaluate_knn(watched, heard):
    rows = read_knn(watched / "knn.csv")
    assert [(row.step, row.layout) for row in rows] == [(s, x) for s in (4, 8, 12) for x in LAYOUTS]
    assert [row for rows in heard for row in rows] == [
        row._replace(mean_cosine=pytest.approx(row.mean_cosine)) for row in rows
    ]
    run = open_run(watched)
    for row in rows[-2:]:
        assert row.accuracy == evaluate_knn(run, row.layout)["by_k"]["1"]
        assert 0 < row.mean_cosine <= 1 + 1e-9


def test_maps_and_accuracies_are_in_tensorboard(watched):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(watched / "tensorboard"), {"images": 0}).Reload()
    for name in LAYOUTS:
        assert [e.step for e in board.Scalars(f"knn/joint/{name}")] == [4, 8, 12]
        assert [e.step for e in board.Images(f"tsne/joint_{name}")] == [5, 10]
    assert len(list((watched / "tsne").glob("*.png"))) == 4


def test_checkpoints_that_stay_are_those_of_their_epochs(watched):
    (kept,) = watched.glob("checkpoint_epoch_*.pt")
    assert kept.name == "checkpoint_epoch_0002.pt"
    assert load_checkpoint(kept)["step"] == 2 * STEPS_PER_EPOCH == open_run(kept).step


def test_a_resume_drops_what_was_measured_after_its_step(tmp_path):
    (tmp_path / "tsne").mkdir()
    rows = [KnnRecord(step, "joint", "a", 50.0, 0.5) for step in (4, 8)]
    log = RunLog(tmp_path)
    log.write_knn(rows)
    log.close()
    RunLog(tmp_path, 6).close()
    assert read_knn(tmp_path / "knn.csv") == rows[:1]


def test_a_finished_run_goes_on_with_more_steps(data, plain, tmp_path):
    short = pretrain(tiny_recipe(data, tmp_path / "run", steps=7))
    assert_same_run(pretrain(tiny_recipe(data, short, steps=12), resume=True), plain)
    with pytest.raises(InputError, match="has done 12 steps, more than the 10 asked for"):
        pretrain(tiny_recipe(data, short, steps=10), resume=True)


def test_a_cosine_schedule_that_goes_on_says_so(data, tmp_path, caplog):
    short = pretrain(tiny_recipe(data, tmp_path / "run", steps=2, schedule="cosine"))
    pretrain(tiny_recipe(data, short, steps=3, schedule="cosine"), resume=True)
    assert "was to end after 2 steps and now ends after 3" in caplog.text


# init_from


def begun(recipe):
    run = Pretraining(recipe, Ranks(), torch.device("cpu"))
    run.begin(False)
    return run


@pytest.mark.parametrize(
    ("changes", "new"),
    [
        ({}, "the queue"),
        ({"embedding_dim": 5}, "the projection head (embedding_dim is 6 there), the queue"),
        ({"stream": "bone"}, "the projection head (stream is joint there), the queue"),
        ({"method": "skeletonclr"}, "the projection head (method is aimclr there), the queue"),
        ({"method": "multiview", "queue_size": 0}, "the projection head (method is aimclr there)"),
    ],
)
def test_a_run_begins_with_the_encoder_of_another(changes, new, data, plain, tmp_path):
    run = begun(tiny_recipe(data, tmp_path / "run", init_from=str(plain), **changes))
    theirs = load_checkpoint(plain / "checkpoint.pt")["method"]
    for name in ("query", "key") if hasattr(run.method, "key") else ("query",):
        mine = getattr(run.method, name).state_dict()
        assert mine.keys() == {k[6:] for k in theirs if k.startswith("query.")}
        for key, value in mine.items():
            if not changes or key.startswith("encoder."):
                assert value.equal(theirs[f"query.{key}"]), key
        assert mine["head.0.weight"].equal(theirs["query.head.0.weight"]) is not bool(changes)
    taken = "encoder" if changes else "encoder and the projection head"
    assert header(run, 0)[-2] == f"begins with the {taken} of {plain}; new: {new}"


def test_a_run_that_begins_by_itself_or_goes_on_says_nothing_of_another(data, plain, tmp_path):
    said = []
    recipe = tiny_recipe(data, tmp_path / "run", init_from=str(plain), steps=1)
    pretrain(recipe, say=said.append)
    assert sum(line.startswith("begins with") for line in said) == 1
    pretrain(recipe, resume=True, say=said.append)
    pretrain(tiny_recipe(data, tmp_path / "other", steps=1), say=said.append)
    assert sum(line.startswith("begins with") for line in said) == 1


def test_a_new_layout_of_it_begins_newly_initialised(plain, tmp_path):
    names = (LAYOUTS[0], UNSEEN)
    other = prepare_tiny(tmp_path / "data", names)
    run = begun(tiny_recipe(other, tmp_path / "run", init_from=str(plain), layouts=list(names)))
    assert header(run, 0)[-2].endswith(f"new: the queue, the layout {UNSEEN} (unknown there)")
    theirs = load_pretrained(plain / "checkpoint.pt").encoder
    mine = run.method.query.encoder
    for key, value in mine.state_dict().items():
        if UNSEEN not in key.split("."):
            assert value.equal(theirs.state_dict()[key]), key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_channels": 4}, "has another encoder: .* give the same hidden_channels"),
        ({"init_from": "nowhere"}, "nowhere"),
        ({"method": "crossclr"}, "init_from has no encoder of stream joint"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(changes, message, data, plain, tmp_path):
    recipe = tiny_recipe(data, tmp_path / "run", **{"init_from": str(plain), **changes})
    with pytest.raises(InputError, match=message):
        pretrain(recipe)
    assert not (tmp_path / "run").exists()


def test_each_encoder_of_a_run_of_crossclr_begins_with_its_own(data, tmp_path):
    first = pretrain(tiny_recipe(data, tmp_path / "a", method="crossclr", steps=1))
    run = begun(tiny_recipe(data, tmp_path / "b", method="crossclr", init_from=str(first)))
    assert "encoders and the projection heads of" in run.initial
    heads = load_checkpoint(first / "checkpoint.pt")["method"]
    for name in ("query", "key"):
        for stream, embedder in getattr(run.method, name).items():
            mine = embedder.head[2].weight
            assert mine.equal(heads[f"query.{stream}.head.2.weight"]), stream
    for stream in ("joint", "motion", "bone"):
        theirs = load_pretrained(first / "checkpoint.pt", encoder=stream).encoder.state_dict()
        for key, value in run.method.query[stream].encoder.state_dict().items():
            assert value.equal(theirs[key]), (stream, key)
    with pytest.raises(InputError, match="leave encoder out"):
        load(first, encoder="motion")


# What a run says


def run_of(data, folder, **changes):
    return Pretraining(tiny_recipe(data, folder, **changes), Ranks(), torch.device("cpu"))


def test_the_header_has_the_facts_of_the_run(data, tmp_path):
    run = run_of(data, tmp_path / "run", keep_every=3)
    lines = header(run, 5)
    assert lines[:2] == [
        f"{data}: 22 clips under {', '.join(LAYOUTS)}",
        "8 frames, frame camera, fp32, on the device",
    ]
    assert "precision fp32" in lines and lines[-1] == "resuming from step 5 of 12"
    assert any(line.startswith("device cpu (") for line in lines)
    assert any(line.startswith("backend ") for line in lines)
    steps = "12 steps of 8 clips, 5 an epoch; a checkpoint every 4 steps, one kept every 3 epochs"
    assert steps in lines and f"output {tmp_path / 'run'}" in lines


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"queue_size": 23}, ["the queue holds 23 keys of 22 clips"]),
        ({"batch_size": 40}, ["a batch of 40 shows some of the 22 clips more than once"]),
        ({"mining_epoch": 3}, ["mining_epoch=3 lies beyond the run's end (epoch 2.4), so neigh"]),
        ({"mining_epoch": 2}, []),
        ({"mining_epoch": None}, []),
        ({"method": "crossclr", "cross_epoch": 9}, ["cross_epoch=9 lies beyond the run's end"]),
        ({"method": "skeletonclr"}, []),
    ],
)
def test_what_is_probably_not_meant_is_said(changes, said, data, tmp_path):
    found = notices(run_of(data, tmp_path / "run", **changes))
    assert len(found) == len(said)
    assert all(line.startswith(text) for line, text in zip(found, said, strict=True))


def test_keys_that_coincide_are_a_sign_of_collapse_said_once(data, tmp_path):
    run = run_of(data, tmp_path / "run")
    assert run.sign_of_collapse(STEPS_PER_EPOCH) is None  # random unit vectors
    run.method.enqueue(torch.ones(5, 6) / 6**0.5)
    assert last_keys_cosine(run.method, 5) == pytest.approx(1)
    assert last_keys_cosine(run.method, 13) < 0.9
    run.method.enqueue(torch.ones(8, 6) / 6**0.5)
    assert run.sign_of_collapse(STEPS_PER_EPOCH - 1) is None  # in the first epoch
    assert "the last keys nearly coincide" in run.sign_of_collapse(STEPS_PER_EPOCH)
    assert run.sign_of_collapse(STEPS_PER_EPOCH) is None
