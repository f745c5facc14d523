"""Keys of a recipe that say how views are made: pairs with an anchor, and `augment`."""

from __future__ import annotations

import pytest
import torch

from msclr.config import DEFAULT_VALUES, load_recipe, make_recipe, save_recipe
from msclr.data import SkeletonDataset
from msclr.errors import InputError
from msclr.kernels.augment.amounts import PAPER
from msclr.training.build import build_views
from msclr.training.sampler import Draw
from tests.tiny import LAYOUTS, tiny_recipe

BASE = {"data": "d", "out": "o"}
DRAW = Draw(torch.arange(20), torch.arange(20) % 2)


def views(data, tmp_path, **changes):
    dataset = SkeletonDataset(data, "train")
    return build_views(tiny_recipe(data, tmp_path, **changes), dataset)(DRAW, 0)


def layout_of(views) -> dict[int, str]:
    return {row: name for name, view in views.items() for row in view.rows.tolist()}


@pytest.mark.parametrize("method", ["aimclr", "crossclr"])
def test_every_pair_has_the_anchor(method, data, tmp_path):
    anchor, other = reversed(LAYOUTS)
    batch = views(data, tmp_path, pairs=f"anchor={anchor}", method=method)
    batch = batch["joint"] if method == "crossclr" else batch
    query, key = layout_of(batch.query), layout_of(batch.key)
    assert {(query[i], key[i]) for i in range(20)} == {
        (anchor, anchor), (anchor, other), (other, anchor),
    }  # fmt: skip


def test_an_anchor_that_the_clips_lack_is_refused(data, tmp_path):
    with pytest.raises(
        InputError, match="pairs: anchor=openpose_18, but the clips of .* are under"
    ):
        views(data, tmp_path, pairs="anchor=openpose_18")
    with pytest.raises(InputError, match="pairs must be one of .*, anchor=LAYOUT, got 'anchor='"):
        make_recipe(BASE | {"pairs": "anchor="})


def test_a_command_says_the_anchor():
    assert load_recipe("toy", ["pairs=anchor=smplx_42"]).pairs == "anchor=smplx_42"


def test_the_papers_strengths_are_the_defaults_of_recipes_and_of_the_operator():
    assert DEFAULT_VALUES["augment"] == PAPER


def test_strengths_are_inherited_one_by_one(tmp_path):
    (tmp_path / "a.yaml").write_text("data: d\nout: o\naugment:\n  shear: 0.3\n  noise: off\n")
    (tmp_path / "b.yaml").write_text("base: a\naugment: {noise: on, flip: 0.25}\n")
    recipe = load_recipe(str(tmp_path / "b.yaml"), ["augment=rotation=10,blur=off"])
    assert recipe.augment == PAPER | {"shear": 0.3, "flip": 0.25, "rotation": 10.0, "blur": 0.0}
    save_recipe(recipe, tmp_path / "c.yaml")
    assert load_recipe(str(tmp_path / "c.yaml")) == recipe


def test_a_method_without_extreme_views_leaves_their_strengths_behind(tmp_path):
    (tmp_path / "a.yaml").write_text("data: d\nout: o\naugment: {shear: 0.3, noise: off}\n")
    recipe = load_recipe(str(tmp_path / "a.yaml"), ["method=skeletonclr"])
    assert recipe.augment == PAPER | {"shear": 0.3}
    with pytest.raises(InputError, match="noise is of extreme views, which method skeletonclr has"):
        load_recipe(str(tmp_path / "a.yaml"), ["method=skeletonclr", "augment=noise=0.2"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("sheer=1", "augment has no 'sheer'; did you mean 'shear'?"),
        ("shear", "augment: shear must be a number from 0 on, on or off, got None"),
        ("crop=1.5", r"augment: crop must be a number in 0..1, on or off, got '1.5'"),
        ("rotation=-1", r"augment: rotation must be a number in 0..180, on or off, got '-1'"),
        ("noise=nan", "augment: noise must be a number from 0 on"),
        ("blur=0.05", "augment: blur must be off, or at least 0.1 frames"),
        (["shear"], "augment must be NAME=STRENGTH"),
    ],
)
def test_a_strength_that_cannot_be_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        make_recipe(BASE | {"augment": given})


def test_views_have_the_strengths_of_the_recipe(data, tmp_path):
    off = dict.fromkeys(PAPER, "off")
    plain = SkeletonDataset(data, "train")
    batch = views(data, tmp_path, augment=off)
    for kind in (batch.query, batch.extreme, batch.key):
        for name, view in kind.items():
            wanted = plain.inputs(plain.views[name][DRAW.clips[view.rows]], name)
            assert torch.equal(view.x, wanted)
