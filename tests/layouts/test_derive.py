"""Derived layouts: the rules of every shipped file, and the matrices that follow from them."""

import copy
import importlib.util
import pickle
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from msclr import layouts
from msclr.data import open_store, prepare_arrays, toy
from msclr.errors import InputError
from msclr.layouts import Layout, derivable, derivation, derive_joints

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(file.stem for file in Path(layouts.__file__).parent.glob("*.toml"))
PAIRS = [(a, b) for a in SHIPPED for b in derivable(layouts.get(a))]


def matrix(source, target):
    return derivation(layouts.get(source), layouts.get(target))


@pytest.mark.parametrize("source", SHIPPED)
def test_what_is_derivable_derives_and_the_rest_names_its_joints(source):
    layout, listed = layouts.get(source), derivable(layouts.get(source))
    for name in SHIPPED:
        target = layouts.get(name)
        if name in listed or name == source:
            found = derivation(layout, target)
            assert found.shape == (target.num_joints, layout.num_joints)
            assert found.dtype == np.float64
            np.testing.assert_allclose(found.sum(axis=1), 1, rtol=0, atol=1e-12)
        else:
            message = f"{name} cannot be derived from {source}: "
            with pytest.raises(InputError, match=re.escape(message)) as caught:
                derivation(layout, target)
            named = set(re.findall(r"[A-Za-z0-9_]+", str(caught.value).removeprefix(message)))
            assert named & set(target.joints), "no joint is named"


def test_every_layout_but_markers_and_hands_is_derived_from_another():
    derived = {target for _, target in PAIRS}
    assert set(SHIPPED) - derived == {
        "berkeley_mhad_43",
        "bml_movi_87",
        "ghum_35",
        "gpa_34",
        "human4d_32",
        "mediapipe_33",
        "smplx_42",
        "uiprmd_vicon_39",
    }
    assert {source for source, _ in PAIRS} == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_to_itself_it_is_the_identity(name):
    np.testing.assert_array_equal(matrix(name, name), np.eye(layouts.get(name).num_joints))


@pytest.mark.parametrize("name", sorted({target for _, target in PAIRS}))
def test_the_rules_alone_give_back_joints_that_are_landmarks(name):
    """Under another name the identity has to come from the rules."""
    layout = layouts.get(name)
    twin = copy.copy(layout)
    object.__setattr__(twin, "name", "twin")
    found, offered, rules = derivation(layout, twin), dict(layout.landmarks), dict(layout.derived)
    exact = [
        w
        for w, joint in enumerate(layout.joints)
        if [offered[landmark] for landmark, _ in rules[joint]] == [((joint, 1.0),)]
    ]
    assert len(exact) >= 0.8 * layout.num_joints
    np.testing.assert_array_equal(found[exact], np.eye(layout.num_joints)[exact])


def test_the_same_joints_in_other_bones_are_the_same():
    for other in ("kinectv2_25_kinect", "kinectv2_25_pyskl"):
        np.testing.assert_array_equal(matrix("kinectv2_25", other), np.eye(25))
    np.testing.assert_array_equal(matrix("ikea_asm_17", "coco_17"), np.eye(17))


@pytest.mark.parametrize("source", SHIPPED)
def test_left_and_right_are_treated_alike(source):
    flip = layouts.get(source).flip.numpy()
    for name in derivable(layouts.get(source)):
        found, mirror = matrix(source, name), layouts.get(name).flip.numpy()
        np.testing.assert_allclose(found[mirror][:, flip], found, rtol=0, atol=1e-12, err_msg=name)


def test_moving_and_turning_the_body_does_the_same_to_what_is_derived():
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    for source, target in PAIRS:
        xyz = rng.normal(size=(5, layouts.get(source).num_joints, 3))
        found = matrix(source, target)
        moved = derive_joints(1.3 * xyz @ turn + [1, 2, 3], found)
        np.testing.assert_allclose(
            moved, 1.3 * derive_joints(xyz, found) @ turn + [1, 2, 3], rtol=0, atol=1e-9
        )


# A Kinect body of round numbers: x to its left, y up, metres.
KINECT = {
    "spinebase": (0, 1.0, 0),
    "spinemid": (0, 1.3, 0),
    "spineshoulder": (0, 1.5, 0),
    "neck": (0, 1.6, 0),
    "head": (0, 1.7, 0.1),
    "lsho": (0.2, 1.4, 0),
    "rsho": (-0.2, 1.4, 0),
    "lelb": (0.3, 1.2, 0),
    "relb": (-0.3, 1.2, 0),
    "lwri": (0.3, 0.9, 0.1),
    "rwri": (-0.3, 0.9, 0.1),
    "lhip": (0.1, 0.9, 0),
    "rhip": (-0.1, 0.9, 0),
    "lkne": (0.1, 0.5, 0),
    "rkne": (-0.1, 0.5, 0),
    "lank": (0.1, 0.1, 0),
    "rank": (-0.1, 0.1, 0),
}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (
            "coco_19",
            {
                "neck": KINECT["spineshoulder"],
                "pelv": KINECT["spinebase"],
                "nose": (0, 0.85 * 1.7 + 0.15 * 1.5, 0.085),
                "leye": (0.04, 1.7, 0.1),
                "reye": (-0.04, 1.7, 0.1),
                "lear": (0.088, 1.7, 0.1),
                "rear": (-0.088, 1.7, 0.1),
            },
        ),
        (
            "h36m_17",
            {
                "neck": KINECT["spineshoulder"],
                "pelv": KINECT["spinebase"],
                # lumbar = 0.41 * 1.0 + 0.59 * 1.3 = 1.177, then 0.35 * 1.177 + 0.65 * 1.3
                "spin": (0, 1.25695, 0),
                "head": (0, 0.23 * 1.5 + 0.77 * 1.7, 0.077),
                "htop": (0, 1.54 * 1.7 - 0.54 * 1.5, 0.154),
            },
        ),
    ],
)
def test_worked_out_by_hand(target, expected):
    xyz = np.array([KINECT.get(j, (9, 9, 9)) for j in layouts.get("kinectv2_25").joints])
    found = derive_joints(xyz, matrix("kinectv2_25", target))
    expected = {joint: KINECT.get(joint) for joint in layouts.get(target).joints} | expected
    for joint, place in zip(layouts.get(target).joints, found, strict=True):
        np.testing.assert_allclose(place, expected[joint], rtol=0, atol=1e-12, err_msg=joint)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("kinectv2_25", "smpl_24"),
        ("smplx_42", "kinectv2_25"),
        ("smplx_42", "smpl_24"),
        ("berkeley_mhad_43", "smpl_24"),
    ],
)
def test_derived_joints_lie_near_those_of_the_layout_itself(source, target):
    """On generated bodies of all actions, whose sensors err by 1.1 to 2 cm a coordinate."""
    views = toy.generate(20, seed=1, layouts=[source, target])["views"]
    away = []
    for xyz, wanted in zip(views[source], views[target], strict=True):
        missing = (xyz == 0).all(axis=-1, keepdims=True) | np.zeros_like(xyz, bool)
        derived = derive_joints(np.where(missing, np.nan, xyz), matrix(source, target))
        away.append(np.linalg.norm(derived - wanted, axis=-1).reshape(-1, wanted.shape[2]))
    away = np.nanmedian(np.concatenate(away), axis=0)  # (V,)
    assert np.median(away) < 0.06 and away.max() < 0.12


def test_missing_joints_spoil_what_needs_them_and_nothing_else():
    kinect, coco = layouts.get("kinectv2_25"), layouts.get("coco_19")
    found, rng = derivation(kinect, coco), np.random.default_rng(0)
    xyz = rng.normal(size=(2, 7, 25, 3)).astype(np.float32)
    whole = derive_joints(xyz, found)
    assert whole.shape == (2, 7, 19, 3) and whole.dtype == np.float64
    xyz[1, 3, kinect.joints.index("head"), 1] = np.nan
    xyz[0, 2, kinect.joints.index("lthu")] = np.nan  # nothing of coco_19 needs it
    derived = derive_joints(xyz, found)
    lost = np.isnan(derived)
    names = {coco.joints[joint] for joint in np.nonzero(lost.any(axis=(0, 1, 3)))[0]}
    assert names == {"nose", "leye", "reye", "lear", "rear"}
    assert lost.sum() == 5 * 3 and lost[1, 3].sum() == 5 * 3
    np.testing.assert_array_equal(derived[~lost], whole[~lost])


ROBOT = {
    "name": "robot",
    "joints": ["base", "lleg", "rleg", "mast"],
    "bones": [["lleg", "base"], ["rleg", "base"], ["mast", "base"]],
    "center": "base",
    "landmarks": {
        "pelvis": "base",
        "lhip": "lleg",
        "rhip": "rleg",
        "mid_hip": {"lleg": 0.5, "rleg": 0.5},
        "neck_base": {"mast": 1.0},
    },
    "derived": {"mast": {"neck_base": 1.5, "mid_hip": -0.5}},
}

ROBOT_TOML = """
name = "robot"
joints = ["base", "lleg", "rleg", "mast"]
bones = [["lleg", "base"], ["rleg", "base"], ["mast", "base"]]
center = "base"
[landmarks]
pelvis = "base"
lhip = "lleg"
rhip = "rleg"
mid_hip = { lleg = 0.5, rleg = 0.5 }
neck_base = { mast = 1.0 }
[derived]
mast = { neck_base = 1.5, mid_hip = -0.5 }
"""


def test_a_layout_of_ones_own(tmp_path):
    (tmp_path / "robot.toml").write_text(ROBOT_TOML)
    robot = layouts.load(tmp_path / "robot.toml")
    assert robot.landmarks == Layout(**ROBOT).landmarks and robot.derived == Layout(**ROBOT).derived
    smpl = layouts.get("smpl_24")
    at = {joint: i for i, joint in enumerate(smpl.joints)}
    expected = np.zeros((4, 24))
    expected[0, at["pelv"]] = expected[1, at["lhip"]] = expected[2, at["rhip"]] = 1
    expected[3, at["neck"]], expected[3, [at["lhip"], at["rhip"]]] = 1.5, -0.25
    np.testing.assert_allclose(derivation(smpl, robot), expected, rtol=0, atol=1e-15)
    layouts.register(robot)
    assert "robot" in derivable(smpl) and derivable(robot) == []
    with pytest.raises(InputError, match=r"smpl_24 cannot be derived from robot: .*lumbar \(for"):
        derivation(robot, smpl)


def test_a_joint_without_a_rule_is_named():
    bare = Layout(**(ROBOT | {"name": "bare", "landmarks": None, "derived": None}))
    with pytest.raises(InputError, match="no rule for base, lleg, rleg, mast"):
        derivation(layouts.get("smpl_24"), bare)
    np.testing.assert_array_equal(derivation(bare, bare), np.eye(4))


def test_rules_are_no_part_of_what_a_layout_is(tmp_path):
    robot = Layout(**ROBOT)
    bare = Layout(**(ROBOT | {"landmarks": None, "derived": None}))
    assert robot == bare and hash(robot) == hash(bare)
    assert "landmarks" not in robot.to_dict() and "derived" not in robot.to_dict()
    assert Layout.from_dict(robot.to_dict()) == robot
    for twin in (copy.deepcopy(robot), pickle.loads(pickle.dumps(robot))):
        assert (twin.landmarks, twin.derived) == (robot.landmarks, robot.derived)


def test_a_data_set_opens_whatever_rules_its_layout_has_today(tmp_path):
    bare = Layout(**(ROBOT | {"landmarks": None, "derived": None}))
    clip = np.random.default_rng(0).normal(size=(8, 4, 3))
    prepare_arrays(tmp_path / "set", {bare: [clip]}, [0], ["train"], frames=4)
    layouts.register(Layout(**ROBOT))
    assert open_store(tmp_path / "set").layouts["robot"].landmarks


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"landmarks": ["lhip"]}, "landmarks: got ['lhip'], wanted a table such as"),
        ({"landmarks": {"lhip": "llge"}}, "landmarks: lhip names 'llge', which is not among the"),
        ({"landmarks": {"lhip": "llge"}}, "did you mean 'lleg'?"),
        ({"landmarks": {"lhip": {"lleg": 1, "x": 0}}}, "landmarks: lhip names 'x', which is not"),
        ({"landmarks": {"lhip": 5}}, "landmarks: lhip is 5; wanted a name, or weights such as"),
        ({"landmarks": {"lhip": {}}}, "landmarks: lhip is {}; wanted a name, or weights such as"),
        ({"landmarks": {"a": {"lleg": "1"}}}, "landmarks: a weighs 'lleg' by '1'; wanted a number"),
        ({"landmarks": {"a": {"lleg": True}}}, "landmarks: a weighs 'lleg' by True; wanted a"),
        ({"landmarks": {"a": {"lleg": np.nan}}}, "landmarks: a weighs 'lleg' by nan; wanted a"),
        (
            {"landmarks": {"a": {"lleg": 0.5, "rleg": 0.4}}},
            "landmarks: a has weights that sum to 0.9; they must sum to 1",
        ),
        ({"derived": "mast"}, "derived: got 'mast', wanted a table"),
        ({"derived": {"mats": "neck"}}, "derived: 'mats' is not among the joints; did you mean"),
        (
            {"derived": {"mast": {"neck": 1.1}}},
            "derived: mast has weights that sum to 1.1; they must sum to 1",
        ),
    ],
)
def test_wrong_rules_name_the_key_and_the_mend(change, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        Layout.from_dict(ROBOT | change, source="my.toml")
    assert str(caught.value).startswith("my.toml: layout 'robot': ")
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def example():
    file = ROOT / "examples" / "derived_layouts.py"
    spec = importlib.util.spec_from_file_location("derived_layouts", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_the_documentation_is_the_commands(example):
    text = (ROOT / "docs" / "layouts.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"<!-- table derivable -->\n(.*?)\n<!-- end -->", text, flags=re.DOTALL)
    assert table == example.table(), "run python examples/derived_layouts.py"


def test_the_documentation_shows_every_picture(example):
    text = (ROOT / "docs" / "layouts.md").read_text(encoding="utf-8")
    shown = re.findall(r"\]\((layouts/.*?\.svg)\)", text)
    assert shown == [f"layouts/{target}_from_{source}.svg" for source, target in example.PAIRS]
    for source, target in example.PAIRS:
        wanted = example.picture(layouts.get(source), layouts.get(target))
        kept = (ROOT / "docs" / "layouts" / f"{target}_from_{source}.svg").read_text("utf-8")
        # Another machine may round the last digit otherwise: compare what is drawn, to a pixel.
        (a, a_text), (b, b_text) = drawn(wanted), drawn(kept)
        np.testing.assert_allclose(a, b, rtol=0, atol=1.0)
        assert a_text == b_text


def drawn(svg):
    """The coordinates of all lines and circles, and the caption."""
    root = ElementTree.fromstring(svg)
    numbers = [
        float(value)
        for element in root.iter()
        for key, value in element.items()
        if key in ("x1", "y1", "x2", "y2", "cx", "cy")
    ]
    return numbers, root.findtext("{http://www.w3.org/2000/svg}text")


def test_every_landmark_of_the_shipped_files_is_described():
    text = (ROOT / "docs" / "layouts.md").read_text(encoding="utf-8")
    described = set(re.findall(r"`([a-z_]+)`", text))
    for name in SHIPPED:
        for landmark, _ in layouts.get(name).landmarks:
            left = re.sub(r"^r(?=hip|knee|ank|sho|elb|wri|cla|eye|ear|hand|fing|thu|ball|toe|heel)",
                          "l", landmark)  # fmt: skip
            assert left in described, f"{name}: {landmark}"
        for _, rule in layouts.get(name).derived:
            assert {landmark for landmark, _ in rule} <= {
                landmark for other in SHIPPED for landmark, _ in layouts.get(other).landmarks
            }
