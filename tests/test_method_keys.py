"""Keys that the method of a recipe does not read are refused; those of a base are left behind."""

from __future__ import annotations

from dataclasses import fields

import pytest

from msclr.config import Recipe, load_recipe, make_recipe, recipe_names, save_recipe
from msclr.method_keys import READS, readable, unread
from msclr.methods import METHODS
from tests.test_config import HERE, refused, write

# One key of each kind that a method reads, with a value that is not its default.
VALUES = {
    "stream": "bone",
    "pairs": "all",
    "queue_size": 64,
    "queue_precision": "bf16",
    "key_momentum": 0.9,
    "mining_epoch": 7,
    "mining_top_k": 2,
    "cross_epoch": 7,
    "context": False,
    "negatives": "batch",
}


def test_every_method_has_its_keys_and_all_of_them_are_of_recipes():
    assert READS.keys() == METHODS.keys()
    assert set().union(*READS.values()) == VALUES.keys()
    assert VALUES.keys() <= {f.name for f in fields(Recipe)}


@pytest.mark.parametrize("method", READS)
@pytest.mark.parametrize("key", VALUES)
def test_a_key_is_taken_by_methods_that_read_it_and_refused_by_others(method, key):
    values = HERE | {"method": method, key: VALUES[key]}
    if key in READS[method]:
        assert getattr(make_recipe(values), key) == VALUES[key]
        return
    message = refused(make_recipe, values)
    assert message.startswith(
        f"recipe: method {method} does not read {key}, got {VALUES[key]!r}; leave it out, or "
    )
    readers = message.rpartition(": ")[2].split(", ")
    assert readers and all(key in READS[name] for name in readers)


@pytest.mark.parametrize("text", ["mining_epoch=3", "mining_epoch=150", "mining_epoch=null"])
def test_a_command_that_asks_for_it_is_refused_whatever_the_value(text):
    message = refused(load_recipe, "ui_prmd", ["method=skeletonclr", text])
    assert "recipe ui_prmd: method skeletonclr does not read mining_epoch" in message


def test_a_changed_method_leaves_behind_what_it_does_not_read(tmp_path):
    small = load_recipe("small", ["data=d", "out=o"])
    changed = load_recipe("small", ["data=d", "out=o", "method=multiview"])
    assert (small.queue_size, small.key_momentum, small.pairs) == (512, 0.99, "sample")
    assert (changed.queue_size, changed.lr, changed.steps) == (0, small.lr, small.steps)
    base = write(tmp_path, "base", "base: small\ndata: d\nout: o\nmining_top_k: 3\n")
    write(tmp_path, "top", "base: base\nmethod: crossclr\n")
    top = load_recipe(str(tmp_path / "top.yaml"), ["cross_epoch=4"])
    assert (top.mining_top_k, top.queue_size, top.mining_epoch) == (3, 512, 150)
    assert top.cross_epoch == 4
    assert load_recipe(base).mining_epoch is None


def test_what_a_method_reads_is_inherited_where_the_method_stays(tmp_path):
    write(tmp_path, "mine", "data: d\nout: o\nmethod: multiview\nqueue_size: 64\n")
    again = load_recipe(str(tmp_path / "mine.yaml"), ["method=multiview", "negatives=batch"])
    assert (again.queue_size, again.negatives) == (64, "batch")


@pytest.mark.parametrize("method", READS)
def test_a_saved_recipe_of_each_method_comes_back(method, tmp_path):
    recipe = make_recipe(HERE | {"method": method})
    save_recipe(recipe, tmp_path / "recipe.yaml")
    assert load_recipe(str(tmp_path / "recipe.yaml"), ["lr=0.1"]) == recipe


def test_a_recipe_kept_by_an_older_version_may_hold_what_was_ignored_then():
    kept = HERE | {"method": "skeletonclr", "mining_epoch": 20, "lr": 0.5}
    assert make_recipe(readable(kept)) == Recipe(**HERE, method="skeletonclr", lr=0.5)
    assert unread("aimclr") == {"cross_epoch", "context", "negatives"}


def test_the_shipped_recipes_of_a_method_differ_from_their_base_in_nothing_else():
    methods = {"crossclr", "multiview"}
    names = [name for name in recipe_names() if name.rpartition("_")[2] in methods]
    assert len(names) >= 8
    for name in names:
        base, _, method = name.rpartition("_")
        mine = load_recipe(name)
        theirs = load_recipe(base, [f"method={method}", f"out=runs/{name}"])
        unlike = {
            f.name for f in fields(Recipe) if getattr(mine, f.name) != getattr(theirs, f.name)
        }
        assert unlike <= {"cross_epoch", "batch_size"}, name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"queue_size": 0}, "queue_size must be at least 1, got 0"),
        ({"queue_size": 2, "mining_top_k": 3}, "mining_top_k is 3, but the queue holds 2 keys"),
        ({"optimizer": "adamw", "nesterov": True}, "nesterov is of optimizer=sgd, got 'adamw'"),
    ],
)
def test_keys_that_do_not_fit_together_are_refused(values, message):
    assert refused(make_recipe, HERE | values) == f"recipe: {message}"


@pytest.mark.parametrize("text", ["true", "True", "TRUE"])
def test_nesterov_is_switched_on_by_the_word(text):
    assert load_recipe("ntu60_xsub", [f"nesterov={text}"]).nesterov is True
