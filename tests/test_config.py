"""Recipes: the shipped ones parse, files inherit, and each wrong value is one clear line."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from msclr import layouts
from msclr.config import (
    RECIPES,
    Recipe,
    load_recipe,
    make_recipe,
    recipe_names,
    save_recipe,
)
from msclr.errors import InputError

HERE = {"data": "d", "out": "o"}


def refused(call, *arguments) -> str:
    """The message of the InputError that the call ends in: one line."""
    with pytest.raises(InputError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def write(folder, name: str, text: str) -> str:
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return str(folder / f"{name}.yaml")


# Shipped recipes


def test_every_recipe_file_is_shipped():
    assert recipe_names() == sorted(p.stem for p in RECIPES.iterdir() if p.is_file())
    assert {"ntu60_xsub", "ntu60_xview", "ntu120_xsub", "ntu120_xset"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_parses(name):
    recipe = load_recipe(name, ["data=somewhere", "out=elsewhere"])
    assert (recipe.data, recipe.out) == ("somewhere", "elsewhere")
    for layout in recipe.layouts or []:
        assert layouts.get(layout).name == layout


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_names_its_folders_or_asks_for_them(name):
    try:
        recipe = load_recipe(name)
    except InputError as error:
        assert str(error) == f"recipe {name}: data is missing; give data=FOLDER"
    else:
        assert recipe.data and recipe.out


def test_the_ntu_recipes_are_the_papers_settings():
    for name in ("ntu60_xsub", "ntu60_xview", "ntu120_xsub", "ntu120_xset"):
        recipe = load_recipe(name)
        assert recipe == Recipe(f"data/{name}", f"runs/{name}", ["kinectv2_25", "smplx_42"])
    facts = {
        "method": "aimclr",
        "hidden_channels": 16,
        "hidden_dim": 256,
        "embedding_dim": 128,
        "dropout": 0.5,
        "queue_size": 32768,
        "key_momentum": 0.999,
        "temperature": 0.07,
        "mining_epoch": 150,
        "epochs": 300,
        "batch_size": 128,
        "optimizer": "sgd",
        "lr": 0.1,
        "weight_decay": 1e-4,
        "milestones": [250],
    }
    assert {key: getattr(recipe, key) for key in facts} == facts


# Files, bases, overrides


def test_an_unset_key_takes_its_default(tmp_path):
    recipe = load_recipe(write(tmp_path, "mine", "data: d\nout: o\nlr: 0.5\n"))
    assert recipe == Recipe("d", "o", lr=0.5)
    assert load_recipe(write(tmp_path, "empty", ""), ["data=d", "out=o"]) == Recipe("d", "o")


def test_a_recipe_inherits_from_a_file_beside_it_and_from_a_shipped_one(tmp_path):
    write(tmp_path, "ground", "base: ntu60_xsub\nlr: 0.5\nepochs: 7\n")
    write(tmp_path, "middle", "base: ground\nlr: 0.25\n")
    recipe = load_recipe(write(tmp_path, "top", "base: middle\nout: o\nmethod: skeletonclr\n"))
    shipped = load_recipe("ntu60_xsub")
    assert recipe == dataclasses.replace(shipped, lr=0.25, epochs=7, out="o", method="skeletonclr")


def test_overrides_win_in_their_order():
    recipe = load_recipe(
        "ntu60_xsub",
        [
            "lr=1e-3",
            "epochs=3",
            "epochs=4",
            "mining_epoch=null",
            "layouts=[smpl_24, smplx_42]",
            "milestones=[1, 2]",
            "out=runs/a=b",
            " seed =9",
        ],
    )
    assert (recipe.lr, recipe.epochs, recipe.mining_epoch, recipe.seed) == (1e-3, 4, None, 9)
    assert (recipe.layouts, recipe.milestones) == (["smpl_24", "smplx_42"], [1, 2])
    assert recipe.out == "runs/a=b"


@pytest.mark.parametrize(
    "text",
    ["data #1", "007", "2024-05-01", "yes", "null", "1e3", "a: b", "'a'", " a ", "ä"],
)
def test_the_text_of_an_override_is_taken_as_it_stands(text):
    recipe = load_recipe("small", [f"data={text}", f"out={text}"])
    assert (recipe.data, recipe.out) == (text, text)


@pytest.mark.parametrize(
    ("text", "data"),
    [("a,b", ["a", "b"]), ("[a, 007]", ["a", "007"]), ("[a]", "a"), ('["a,b"]', "a,b"),
     ("a , ~/b", ["a", "~/b"])],
)  # fmt: skip
def test_several_folders_of_data(text, data, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    home = str(tmp_path)
    wanted = [x.replace("~", home) for x in data] if isinstance(data, list) else data
    recipe = load_recipe("small", [f"data={text}", f"out={text}"])
    assert (recipe.data, recipe.out) == (wanted, text)
    save_recipe(recipe, tmp_path / "saved.yaml")
    assert load_recipe(str(tmp_path / "saved.yaml")) == recipe


def test_in_a_file_several_folders_are_a_list(tmp_path):
    assert load_recipe(write(tmp_path, "one", "data: a,b\nout: o\n")).data == "a,b"
    assert load_recipe(write(tmp_path, "two", "data: [a, b]\nout: o\n")).data == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "text"),
    [(["data=a,a"], "data names a folder twice"), (["data=a,"], "data must be str | list[str]"),
     (["data=[]"], "data must be"), (["draw=even"], "draw=even is of several data sets"),
     (["data=a,b", "draw=odd"], "draw must be one of proportion, even"),
     (["derived_share=0.5"], "derived_share is of derived layouts"),
     (["derive=smpl_24", "derived_share=2"], "derived_share must lie in 0..1"),
     (["derive=smpl_24", "derived_share=0.5", "pairs=all"], "is of pairs=sample, here is all")],
)  # fmt: skip
def test_keys_of_how_data_are_drawn(given, text):
    assert text in refused(load_recipe, "small", ["data=d", "out=o", *given])


@pytest.mark.parametrize("text", ["007", "2024-05-01", "yes", "1e3", "0x10", "1:30", "on", "12"])
def test_a_folder_in_a_file_needs_no_quotes(text, tmp_path):
    assert load_recipe(write(tmp_path, "mine", f"data: {text}\nout: o\n")).data == text


def test_only_an_unquoted_null_is_none(tmp_path):
    text = 'data: "null"\nout: "~"\nlayouts: null\nmining_epoch:\n'
    recipe = load_recipe(write(tmp_path, "mine", text))
    assert (recipe.data, recipe.layouts, recipe.mining_epoch) == ("null", None, None)
    missing = "recipe small: data is missing; give data=FOLDER"
    assert refused(load_recipe, "small", ["out=o"]) == missing
    assert refused(load_recipe, "small", ["out=o", "data="]) == missing


@pytest.mark.parametrize("form", ["KEY=VALUE", "KEY: VALUE"], ids=["override", "file"])
@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("seed", "010", 10),  # 8 to YAML
        ("seed", "1_000", 1000),
        ("lr", "1e-3", 1e-3),
        ("lr", "010", 10.0),
        ("milestones", "010", [10]),
        ("milestones", "[010, 20]", [10, 20]),
        ("milestones", "10, 20", [10, 20]),
        ("layouts", "a,b", ["a", "b"]),
        ("layouts", "[a, 007]", ["a", "007"]),
        ("layouts", "yes", ["yes"]),
        ("layouts", "none", None),
        ("steps", "None", None),
        ("nesterov", "False", False),
    ],
)
def test_a_value_is_read_by_the_kind_of_its_key(form, key, text, value, tmp_path):
    entry = form.replace("KEY", key).replace("VALUE", text)
    if form == "KEY=VALUE":
        recipe = load_recipe("small", ["data=d", "out=o", entry])
    else:
        recipe = load_recipe(write(tmp_path, "mine", f"data: d\nout: o\n{entry}\n"))
    assert getattr(recipe, key) == value
    assert type(getattr(recipe, key)) is type(value)


@pytest.mark.parametrize("text", ["seed=1:30", "seed=0x10", "steps=", "layouts=", "layouts=a,,b"])
def test_what_only_yaml_takes_for_a_value_is_refused(text):
    key, _, value = text.partition("=")
    message = refused(load_recipe, "small", ["data=d", "out=o", text])
    assert message.startswith(f"recipe small: {key} must be ") and message.endswith(f"{value!r}")


def test_folders_and_recipes_may_begin_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write(tmp_path, "mine", "data: ~/d\nout: a/~/b/\n")
    recipe = load_recipe("~/mine.yaml")
    assert (recipe.data, recipe.out) == (f"{tmp_path}/d", "a/~/b/")
    write(tmp_path, "based", "base: ~/mine.yaml\n")
    recipe = load_recipe(str(tmp_path / "based.yaml"), ["out=~/runs/~"])
    assert (recipe.data, recipe.out) == (f"{tmp_path}/d", f"{tmp_path}/runs/~")
    assert make_recipe({"data": "~nobody-of-this-name", "out": "~"}).out == str(tmp_path)


def test_a_recipe_is_utf8_with_or_without_a_mark_of_its_order(tmp_path):
    for mark in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "mine.yaml").write_bytes(mark + "data: Größe  # für später\nout: o\n".encode())
        assert load_recipe(str(tmp_path / "mine.yaml")).data == "Größe"
    save_recipe(Recipe("走る", "o"), tmp_path / "saved.yaml")
    assert "data: 走る\n" in (tmp_path / "saved.yaml").read_bytes().decode("utf-8")


def test_one_value_stands_for_a_list_of_one():
    recipe = make_recipe(HERE | {"layouts": "smpl_24", "milestones": 5})
    assert (recipe.layouts, recipe.milestones) == (["smpl_24"], [5])


def test_a_whole_number_serves_where_a_float_is_wanted():
    recipe = make_recipe(HERE | {"lr": 1, "weight_decay": "1e-4"})
    assert (recipe.lr, recipe.weight_decay) == (1.0, 1e-4)
    assert isinstance(recipe.lr, float)


@pytest.mark.parametrize("changes", [{}, {"mining_epoch": None, "layouts": ["a", "b"], "lr": 1e-7}])
def test_a_saved_recipe_comes_back(tmp_path, changes):
    recipe = make_recipe({"data": "päth: #1", "out": "null"} | changes)
    save_recipe(recipe, tmp_path / "recipe.yaml")
    assert load_recipe(str(tmp_path / "recipe.yaml")) == recipe
    assert list(yaml.safe_load((tmp_path / "recipe.yaml").read_text(encoding="utf-8"))) == [
        f.name for f in dataclasses.fields(Recipe)
    ]


# What is refused


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    line = refused(save_recipe, make_recipe(HERE), tmp_path / "file" / "run" / "recipe.yaml")
    assert line.startswith(f"out is {tmp_path / 'file' / 'run'}: Not a directory; choose")


def test_a_base_that_leads_back_is_refused(tmp_path):
    own = write(tmp_path, "own", "base: own\n")
    assert refused(load_recipe, own) == f"{own}: base 'own' leads back to itself"
    write(tmp_path, "a", "base: b\n")
    write(tmp_path, "b", "base: c\n")
    last = write(tmp_path, "c", "base: a\n")
    assert refused(load_recipe, str(tmp_path / "a.yaml")) == (
        f"{last}: base 'a' leads back to itself"
    )


def test_an_unknown_recipe_or_base_suggests_the_nearest(tmp_path):
    message = refused(load_recipe, "ntu60_xsubb")
    assert message == (
        "no recipe 'ntu60_xsubb': neither a file nor a shipped recipe; did you mean 'ntu60_xsub'?"
    )
    assert "shipped ones are ntu120_xset, " in refused(load_recipe, "qqq")
    assert "'nothere'" in refused(load_recipe, write(tmp_path, "top", "base: nothere\n"))


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "just words\n", "a: [1\nb: 2\n", "a: b: c\n"])
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    path = write(tmp_path, "wrong", text)
    assert refused(load_recipe, path).startswith(f"{path}: ")


def test_a_binary_file_is_refused(tmp_path):
    (tmp_path / "wrong.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not a YAML file" in refused(load_recipe, str(tmp_path / "wrong.yaml"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lr", "expected key=value, got 'lr'"),
        ("layouts=[a", "cannot read the value of 'layouts=[a'"),
        ("epoch=3", "recipe ntu60_xsub: unknown key 'epoch'; did you mean 'epochs'?"),
        ("base=ntu60_xsub", "recipe ntu60_xsub: unknown key 'base'; "),
        ("=3", "recipe ntu60_xsub: unknown key ''; keys are data, out, layouts, "),
    ],
)
def test_a_wrong_override_is_refused(override, message):
    assert refused(load_recipe, "ntu60_xsub", [override]).startswith(message)


@pytest.mark.parametrize("missing", ["data", "out"])
@pytest.mark.parametrize("way", ["absent", "null"])
def test_folders_must_be_given(missing, way):
    values = HERE | {missing: None}
    if way == "absent":
        del values[missing]
    assert refused(make_recipe, values) == f"recipe: {missing} is missing; give {missing}=FOLDER"


CHOICES = ["method", "pairs", "stream", "optimizer", "schedule", "precision", "queue_precision"]
CHOICES += ["data_precision", "bodies", "padding", "negatives"]


@pytest.mark.parametrize("key", CHOICES)
def test_a_choice_lists_what_it_may_be(key):
    message = refused(make_recipe, HERE | {key: "nonsense"})
    default = getattr(Recipe("d", "o"), key)
    assert message.startswith(f"recipe: {key} must be one of ")
    assert default in message.split(", got ")[0]
    assert message.endswith("got 'nonsense'")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("epochs", "many", "must be int, got 'many'"),
        ("epochs", 1.5, "must be int, got 1.5"),
        ("epochs", True, "must be int, got True"),
        ("epochs", None, "must be int, got None"),
        ("steps", "all", "must be int | None, got 'all'"),
        ("lr", "fast", "must be float, got 'fast'"),
        ("lr", [0.1], "must be float, got [0.1]"),
        ("lr", None, "must be float, got None"),
        ("nesterov", "yes", "must be bool, got 'yes'"),
        ("nesterov", 1, "must be bool, got 1"),
        ("method", 3, "must be str, got 3"),
        ("method", None, "must be str, got None"),
        ("layouts", [1], "must be list[str] | None, got [1]"),
        ("layouts", {"a": 1}, "must be list[str] | None, got {'a': 1}"),
        ("milestones", ["x"], "must be list[int], got ['x']"),
        ("milestones", None, "must be list[int], got None"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(key, value, message):
    assert refused(make_recipe, HERE | {key: value}) == f"recipe: {key} {message}"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("epochs", 0, "must be at least 1, got 0"),
        ("batch_size", -4, "must be at least 1, got -4"),
        ("queue_size", 0, "must be at least 1, got 0"),
        ("steps", 0, "must be at least 1, got 0"),
        ("seed", -1, f"must lie in 0..{2**63 - 1}, got -1"),
        ("seed", 2**63, f"must lie in 0..{2**63 - 1}, got {2**63}"),
        ("warmup_steps", -1, "must not be negative, got -1"),
        ("mining_epoch", -1, "must not be negative, got -1"),
        ("mining_top_k", 0, "must be at least 1, got 0"),
        ("lr", 0.0, "must be positive, got 0.0"),
        ("temperature", -0.1, "must be positive, got -0.1"),
        ("weight_decay", -1e-4, "must not be negative, got -0.0001"),
        ("dropout", 1.5, "must lie in 0..1, got 1.5"),
        ("key_momentum", -0.1, "must lie in 0..1, got -0.1"),
    ],
)
def test_a_value_out_of_range_says_its_range(key, value, message):
    assert refused(make_recipe, HERE | {key: value}) == f"recipe: {key} {message}"


@pytest.mark.parametrize(
    ("key", "value"),
    [("lr", True), ("lr", float("inf")), ("weight_decay", float("nan")), ("milestones", [True])],
)
def test_truth_values_and_numbers_that_are_not_finite_are_refused(key, value):
    assert refused(make_recipe, HERE | {key: value}).startswith(f"recipe: {key} must ")


def test_a_key_that_is_no_text_is_refused():
    assert "unknown key 3" in refused(make_recipe, HERE | {3: 4})
