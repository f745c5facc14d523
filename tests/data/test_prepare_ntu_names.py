"""NTU names: the rules of the protocols on generated names, the lists that are shipped."""

from __future__ import annotations

import itertools

import pytest

from msclr.data.prepare.ntu import names
from msclr.data.prepare.ntu.names import ClipName, parse_name, skip_list, split_of
from msclr.errors import InputError

PROTOCOLS = sorted(names.PUBLISHED)


def every_name(dataset: str):
    """Each combination of setup, camera and performer that the data set knows, with one action."""
    setups, performers = (17, 40) if dataset == "ntu60" else (32, 106)
    numbers = (range(1, setups + 1), range(1, 4), range(1, performers + 1))
    return [ClipName(s, c, p, 2, 60) for s, c, p in itertools.product(*numbers)]


def test_a_name_is_its_numbers():
    name = parse_name("S001C002P103R004A120")
    assert name == (1, 2, 103, 4, 120)
    assert (name.setup, name.camera, name.performer, name.action) == (1, 2, 103, 120)
    assert str(name) == "S001C002P103R004A120"


@pytest.mark.parametrize(
    "text", ["", "S001C002P003R001A05", "s001c002p003r001a055", "S001C002P003R001A055.skeleton"]
)
def test_other_texts_are_no_names(text):
    with pytest.raises(InputError, match="no name of an NTU clip"):
        parse_name(text)


def test_cross_view_is_by_camera():
    for name in every_name("ntu60"):
        assert split_of(name, "ntu60", "xview") == {1: "val", 2: "train", 3: "train"}[name.camera]


def test_cross_setup_is_by_even_setups():
    for name in every_name("ntu120"):
        assert split_of(name, "ntu120", "xset") == ("val" if name.setup % 2 else "train")


@pytest.mark.parametrize(("dataset", "train", "val"), [("ntu60", 20, 20), ("ntu120", 53, 53)])
def test_cross_subject_is_by_performer_half_of_whom_train(dataset, train, val):
    sides: dict[int, set[str]] = {}
    for name in every_name(dataset):
        sides.setdefault(name.performer, set()).add(split_of(name, dataset, "xsub"))
    assert all(len(side) == 1 for side in sides.values())
    counts = [list(sides.values()).count({side}) for side in ("train", "val")]
    assert counts == [train, val]


def test_the_performers_of_ntu60_keep_their_side_in_ntu120():
    for name in every_name("ntu60"):
        assert split_of(name, "ntu60", "xsub") == split_of(name, "ntu120", "xsub")


@pytest.mark.parametrize(
    ("performer", "side"),
    [(1, "train"), (3, "val"), (38, "train"), (40, "val"), (45, "train"), (103, "train")]
    + [(48, "val"), (106, "val")],
)
def test_performers_of_ntu120_one_by_one(performer, side):
    assert split_of(ClipName(20, 1, performer, 1, 70), "ntu120", "xsub") == side


@pytest.mark.parametrize(("dataset", "protocol"), PROTOCOLS)
def test_published_counts_are_the_whole_less_the_skipped(dataset, protocol):
    whole, skipped = {"ntu60": (56_880, 302), "ntu120": (114_480, 535)}[dataset]
    assert sum(names.PUBLISHED[dataset, protocol].values()) == whole - skipped


@pytest.mark.parametrize(("dataset", "count"), [("ntu60", 302), ("ntu120", 535)])
def test_skip_lists(dataset, count):
    skipped = skip_list(dataset)
    assert len(skipped) == count
    assert all(names.belongs(parse_name(name), dataset) for name in skipped)
    assert skip_list("ntu60") <= skip_list("ntu120")


def test_cross_view_of_ntu60_loses_to_the_skip_list_what_its_cameras_have_more():
    """56,880 clips are 18,960 a camera: the published counts follow from list and rule."""
    lost = [split_of(parse_name(name), "ntu60", "xview") for name in skip_list("ntu60")]
    assert 2 * 18_960 - lost.count("train") == names.PUBLISHED["ntu60", "xview"]["train"]
    assert 18_960 - lost.count("val") == names.PUBLISHED["ntu60", "xview"]["val"]


def test_classes():
    assert len(names.class_names("ntu60")) == 60
    assert names.class_names("ntu120")[:60] == names.class_names("ntu60")
    assert names.class_names("ntu60")[0] == "drink water"
    assert names.class_names("ntu60")[54] == "hugging other person"
    assert len(set(names.class_names("ntu120"))) == 120


@pytest.mark.parametrize(
    ("name", "in60", "in120"),
    [
        ("S017C001P001R001A060", True, True),
        ("S018C001P001R001A060", False, True),
        ("S017C001P001R001A061", False, True),
        ("S032C001P001R001A120", False, True),
        ("S033C001P001R001A120", False, False),
        ("S001C001P001R001A121", False, False),
        ("S001C001P001R001A000", False, False),
    ],
)
def test_which_clips_belong(name, in60, in120):
    assert names.belongs(parse_name(name), "ntu60") == in60
    assert names.belongs(parse_name(name), "ntu120") == in120


@pytest.mark.parametrize(
    ("dataset", "protocol", "said"),
    [
        ("ntu25", "xsub", "choose ntu60 or ntu120"),
        ("ntu60", "xset", "choose xsub or xview"),
        ("ntu120", "xview", "choose xsub or xset"),
    ],
)
def test_a_protocol_must_be_one_of_the_data_set(dataset, protocol, said):
    with pytest.raises(InputError, match=said):
        names.check_protocol(dataset, protocol)
