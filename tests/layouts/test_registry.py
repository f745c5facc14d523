"""The registry and every layout file that is shipped."""

import json
import re
from collections import deque
from pathlib import Path

import pytest

from msclr import layouts
from msclr.errors import InputError
from msclr.layouts import Layout, _notes, registry

FOLDER = Path(layouts.__file__).parent
SHIPPED = sorted(file.stem for file in FOLDER.glob("*.toml"))

# The joints on the midline (and RBAK, a marker on one side only); all others have a partner.
MIDLINE = {
    "3dpeople_29": "pelv spin spi1 spi2 neck head htop",
    "aspset_17": "htop head neck spin pelv",
    "berkeley_mhad_43": "head backl backt bell chest",
    "bml_movi_87": "backneck upperback clavicle sternum umbilicus head mhip pelv thor",
    "coco_17": "nose",
    "coco_19": "neck nose pelv",
    "ghum_35": "pelv spin1 spin2 spin3 neck head head2",
    "gpa_34": "pelv spin spi1 spi2 spi3 neck head htop",
    "h36m_17": "pelv spin neck head htop",
    "h36m_25": "spin neck head htop pelv",
    "human4d_32": "pelv spin0 spin1 spin2 spin3 neck neck2 head htop neck3",
    "ikea_asm_17": "nose",
    "jta_22": "htop head neck spin0 spin1 spin2 spin3 pelv",
    "kinectv1_20": "HipCenter Spine ShoulderCenter Head",
    "kinectv2_25": "spinebase spinemid neck head spineshoulder",
    "kinectv2_25_kinect": "spinebase spinemid neck head spineshoulder",
    "kinectv2_25_pyskl": "spinebase spinemid neck head spineshoulder",
    "lsp_14": "neck head",
    "mads_19": "neck pelv head",
    "mediapipe_33": "NOSE",
    "mpi_inf_3dhp_17": "htop neck pelv spin head",
    "mpi_inf_3dhp_28": "thor spi4 spi2 spin pelv neck head htop",
    "openpose_18": "nose neck",
    "sailvos_26": "htop neck spin head pelv nose",
    "smpl_24": "pelv spi1 spi2 spi3 neck head",
    "smplx_42": "pelv bell spin thor neck head jaw nose",
    "total_capture_21": "pelv spin spin1 spin2 spin3 neck head",
    "uiprmd_kinect_22": "Waist Spine Chest Neck Head HeadTip",
    "uiprmd_vicon_39": "C7 T10 CLAV STRN RBAK",
    "umpm_15": "pelv neck head",
}


@pytest.fixture
def own_registry(monkeypatch):
    """A registry that the test may add to."""
    table = dict(registry._by_name())
    monkeypatch.setattr(registry, "_by_name", lambda: table)


def test_every_file_is_listed_under_its_own_name():
    assert layouts.names() == SHIPPED == sorted(MIDLINE)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_layout(name):
    layout = layouts.get(name)
    assert layout.name == name
    assert hops_from_center(layout).keys() == set(layout.joints), "one connected piece"
    assert layouts.load(FOLDER / f"{name}.toml") == layout == Layout.from_dict(layout.to_dict())
    assert (FOLDER / f"{name}.toml").read_text().startswith("# Source")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_parents_lead_to_the_center_by_the_shortest_way(name):
    layout = layouts.get(name)
    hops = hops_from_center(layout)
    parents = layout.parents.tolist()
    for joint, parent in zip(layout.joints, parents, strict=True):
        if joint == layout.center:
            assert layout.joints[parent] == joint
        else:
            assert hops[layout.joints[parent]] == hops[joint] - 1, joint
    flip = layout.flip.tolist()
    assert [flip[parent] for parent in parents] == [parents[partner] for partner in flip]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_flip_swaps_left_and_right(name):
    layout = layouts.get(name)
    flip = layout.flip.tolist()
    assert [flip[partner] for partner in flip] == list(range(layout.num_joints))
    unpaired = [
        joint
        for joint, partner in zip(layout.joints, flip, strict=True)
        if layout.joints[partner] == joint
    ]
    assert unpaired == MIDLINE[name].split()
    for joint, partner in zip(layout.joints, flip, strict=True):
        if joint not in unpaired:
            assert side_and_rest(joint)[0] != side_and_rest(layout.joints[partner])[0]
            assert side_and_rest(joint)[1] == side_and_rest(layout.joints[partner])[1]


def hops_from_center(layout):
    hops, queue = {layout.center: 0}, deque([layout.center])
    while queue:
        joint = queue.popleft()
        for bone in layout.bones:
            if joint in bone:
                other = bone[1 - bone.index(joint)]
                if other not in hops:
                    hops[other] = hops[joint] + 1
                    queue.append(other)
    return hops


def side_and_rest(joint):
    """("l" or "r", the name without its side), by another way than the library's."""
    lower = joint.lower()
    for word in ("left", "right"):
        if word in lower:
            return word[0], lower.replace(word, "")
    return lower[0], lower[1:]


@pytest.fixture(scope="module")
def conventions(shared_data):
    file = shared_data.parent / "conventions.json"
    if not file.exists():
        pytest.skip(f"{file} is absent: the published edges cannot be compared")
    return json.loads(file.read_text())


@pytest.mark.parametrize("name", sorted({*SHIPPED} - {"coco_17", "kinectv2_25_pyskl"}))
def test_published_joints_and_edges(name, conventions):
    key = {"kinectv2_25": "paper:ntu-rgb+d", "kinectv2_25_kinect": "kinectv2_25"}.get(name, name)
    key = f"paper:{name}" if f"paper:{name}" in conventions else key
    published, layout = conventions[key], layouts.get(name)
    assert list(layout.joints) == published["joints"]
    edges = {frozenset(published["joints"][i] for i in edge) for edge in published["edges"]}
    bones = {frozenset(bone) for bone in layout.bones}
    if key.startswith("paper:"):  # the graph must be the released one, exactly
        assert bones - {frozenset(bone) for bone in layout.outside_graph} == edges
        assert layout.center_index == published["center"]
    else:
        assert bones >= edges
        assert layout.outside_graph == ()


def test_pyskls_graph_differs_from_the_released_one_at_the_hands():
    ours, theirs = (layouts.get(name) for name in ("kinectv2_25", "kinectv2_25_pyskl"))
    assert (theirs.joints, theirs.center) == (ours.joints, ours.center)
    assert {*ours.bones} - {*theirs.bones} == {("lhandtip", "lthu"), ("rhandtip", "rthu")}
    assert {*theirs.bones} - {*ours.bones} == {("lhandtip", "lhan"), ("rhandtip", "rhan")}


def test_coco_pairs_lie_left_before_right_from_the_eyes_down_to_the_ankles():
    layout = layouts.get("coco")
    places = ["eye", "ear", "sho", "elb", "wri", "hip", "kne", "ank"]
    assert list(layout.joints) == ["nose", *(side + place for place in places for side in "lr")]
    assert layout.parents[layout.joints.index("lank")] == layout.joints.index("lkne")
    assert layout.parents[layout.joints.index("rhip")] == layout.joints.index("rsho")


@pytest.mark.parametrize("name", ["kinectv2_25", "ntu-rgb+d", "NTU-RGB+D", "NTU_RGB+D"])
def test_get_by_name_or_alias_in_any_case(name):
    assert layouts.get(name).name == "kinectv2_25"


def test_get_unknown():
    with pytest.raises(InputError, match="unknown layout 'smplx42'; did you mean 'smplx_42'"):
        layouts.get("smplx42")
    with pytest.raises(InputError, match="unknown layout 'qqqq'; msclr.layouts.names"):
        layouts.get("qqqq")
    with pytest.raises(InputError, match="unknown layout None"):
        layouts.get(None)


def test_register(own_registry):
    robot = Layout("robot_2", ["a", "b"], [["b", "a"]], "a", aliases=["My.Robot"])
    layouts.register(robot)
    layouts.register(Layout.from_dict(robot.to_dict()))  # an equal one may come again
    assert layouts.get("robot_2") == layouts.get("my.robot") == robot
    assert "robot_2" in layouts.names() and "my.robot" not in layouts.names()


@pytest.mark.parametrize(
    ("name", "aliases", "taken"),
    [
        ("smpl_24", [], "smpl_24"),
        ("other", ["NTU-rgb+d"], "ntu-rgb+d"),
        ("other", ["smpl_24"], "smpl_24"),
    ],
)
def test_register_refuses_a_taken_name(own_registry, name, aliases, taken):
    before = layouts.get("smpl_24"), layouts.names()
    message = re.escape(f"the name {taken!r} belongs to a different layout")
    with pytest.raises(InputError, match=message):
        layouts.register(Layout(name, ["a", "b"], [], "a", aliases=aliases))
    assert (layouts.get("smpl_24"), layouts.names()) == before


ROBOT = 'name = "robot"\njoints = ["a", "lb", "rb"]\nbones = [["lb", "a"], ["rb", "a"]]\n'


def test_load(tmp_path, own_registry):
    file = tmp_path / "my.toml"
    file.write_text(ROBOT + 'center = "a"')
    assert layouts.load(file) == layouts.load(str(file))
    assert layouts.load(file).mirror_pairs == (("lb", "rb"),)
    assert "robot" not in layouts.names()


def test_load_skips_a_byte_order_mark_and_expands_a_tilde(tmp_path, monkeypatch):
    (tmp_path / "my.toml").write_text(ROBOT + 'center = "a"', encoding="utf-8-sig")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert layouts.load("~/my.toml").name == "robot"


def test_shipped_layouts_are_loaded_without_a_note(caplog, monkeypatch):
    monkeypatch.setattr(_notes, "_logged", set())
    registry._by_name.__wrapped__()
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ROBOT, "the key 'center' is missing; add it"),
        (
            ROBOT + 'centre = "a"',
            "unknown key 'centre', wanted name, joints, bones, center, "
            "aliases, flip, outside_graph, landmarks, derived; did you mean 'center'?",
        ),
        (ROBOT + 'center = "b"', "layout 'robot': center: 'b' is not among the joints"),
        (ROBOT + "center = a", "not a TOML file: "),
        (ROBOT.encode() + b'center = "\xff"', "not a TOML file: "),
    ],
)
def test_wrong_file(tmp_path, text, message):
    file = tmp_path / "my.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        layouts.load(file)
    assert str(caught.value).startswith(f"{file}: {message}")
    assert "\n" not in str(caught.value)


def test_unreadable_file(tmp_path):
    for path in (tmp_path / "none.toml", tmp_path):  # no such file; a folder
        with pytest.raises(InputError, match="cannot read the layout file: "):
            layouts.load(path)


def test_from_dict_wants_a_table():
    with pytest.raises(InputError, match="dataset.json: wanted a table of keys, got 5"):
        Layout.from_dict(5, source="dataset.json")
