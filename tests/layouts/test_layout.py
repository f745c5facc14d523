"""Layout: graph, parents, flip, and what it refuses. Expected values are worked out by hand."""

import copy
import pickle

import pytest
import torch

from msclr import layouts
from msclr.errors import InputError
from msclr.layouts import Layout, _notes

# A body of five joints, centre "neck":    head - neck - lhip - rhip (a triangle with neck)
#                                                       lhip - lkne
BODY = dict(
    name="body",
    joints=["neck", "head", "lhip", "rhip", "lkne"],
    bones=[
        ["head", "neck"],
        ["lhip", "neck"],
        ["rhip", "neck"],
        ["lkne", "lhip"],
        ["lhip", "rhip"],
    ],
    center="neck",
)
NECK, HEAD, LHIP, RHIP, LKNE = range(5)
# One over (links + 1): neck has 3 links, head 1, lhip 3, rhip 2, lkne 1.
COLUMN = torch.tensor([1 / 4, 1 / 2, 1 / 4, 1 / 3, 1 / 2])


def expected(*parts):
    """(K, V, V) with the column's weight at the given (source, output) entries of each part."""
    adjacency = torch.zeros(len(parts), 5, 5)
    for k, entries in enumerate(parts):
        for source, output in entries:
            adjacency[k, source, output] = COLUMN[output]
    return adjacency


SELF = [(i, i) for i in range(5)]
LINKS = [(NECK, HEAD), (NECK, LHIP), (NECK, RHIP), (LHIP, LKNE), (LHIP, RHIP)]
LINKS += [(b, a) for a, b in LINKS]
# One-hop distance: neck 0; head, lhip, rhip 1; lkne infinite.
NEARER_SOURCE = [(NECK, HEAD), (NECK, LHIP), (NECK, RHIP), (LHIP, LKNE)]


@pytest.mark.parametrize(
    ("strategy", "parts"),
    [
        ("uniform", [SELF + LINKS]),
        ("distance", [SELF, LINKS]),
        ("spatial", [SELF, [e for e in LINKS if e not in NEARER_SOURCE], NEARER_SOURCE]),
        (
            "spatial_true",
            [
                SELF + [(LHIP, RHIP), (RHIP, LHIP)],  # both one hop from the neck
                NEARER_SOURCE,
                [(b, a) for a, b in NEARER_SOURCE],
            ],
        ),
    ],
)
def test_adjacency_of_a_small_body(strategy, parts):
    adjacency = Layout(**BODY).adjacency(strategy)
    assert adjacency.dtype == torch.float32
    torch.testing.assert_close(adjacency, expected(*parts), rtol=0, atol=1e-7)


def test_directed_normalises_each_part_by_itself():
    adjacency = Layout(**BODY).adjacency("directed")
    parent, child = adjacency[1], adjacency[2]
    assert torch.equal(adjacency[0], torch.eye(5))
    assert parent[:, LKNE].tolist() == [1.0 if v == LHIP else 0.0 for v in range(5)]
    assert child[:, LHIP].count_nonzero() == parent[LHIP].count_nonzero()
    assert parent[:, NECK].tolist() == child[:, HEAD].tolist() == [0] * 5  # a root; a leaf
    children = (child[:, NECK] > 0).nonzero().flatten().tolist()
    assert children == sorted([HEAD, LHIP, RHIP])
    assert child[children, NECK].tolist() == pytest.approx([1 / 3] * 3)


def test_distances_end_at_one_hop_in_spatial_only():
    chain = Layout("chain", list("abcd"), [["b", "a"], ["c", "b"], ["d", "c"]], "a")
    # The released graphs take c and d for equally far: both directions are in part 1.
    assert chain.adjacency("spatial")[:, 2, 3].tolist() == [0, 0.5, 0]
    assert chain.adjacency("spatial_true")[:, 2, 3].tolist() == [0, 0.5, 0]
    assert chain.adjacency("spatial")[:, 3, 2].tolist() == pytest.approx([0, 1 / 3, 0])
    assert chain.adjacency("spatial_true")[:, 3, 2].tolist() == pytest.approx([0, 0, 1 / 3])


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("kinectv2_25", [25, 40, 8]),
        ("smpl_24", [24, 38, 8]),
        ("smplx_42", [42, 70, 8]),
        ("berkeley_mhad_43", [43, 79, 5]),
    ],
)
def test_released_graphs_have_their_entry_counts(name, counts):
    adjacency = layouts.get(name).adjacency()  # (K, V, V)
    assert adjacency.count_nonzero(dim=(1, 2)).tolist() == counts
    torch.testing.assert_close(adjacency.sum(dim=(0, 1)), torch.ones(adjacency.shape[-1]))


def test_outside_graph_bones_are_no_links_but_count_as_hops():
    fields = BODY | {"outside_graph": [["lhip", "neck"], ["lhip", "rhip"]]}
    apart = Layout(**fields)
    uniform = apart.adjacency("uniform")[0]
    assert uniform[:, LHIP].tolist() == [0, 0, 0.5, 0, 0.5]  # itself and the knee
    assert apart.parents.tolist() == Layout(**BODY).parents.tolist()
    assert apart.adjacency("spatial_true")[:, LHIP, LKNE].tolist() == [0, 0.5, 0]
    assert apart.adjacency("spatial")[:, LHIP, LKNE].tolist() == [0, 0.5, 0]  # both infinite


def test_joints_that_nothing_leads_to_count_as_equally_far():
    islands = Layout("islands", ["a", "b", "c", "d"], [["b", "a"], ["d", "c"]], "a")
    assert islands.adjacency("spatial_true")[0, 2].tolist() == [0, 0, 0.5, 0.5]
    assert islands.parents.tolist() == [0, 0, 2, 2]


def test_one_joint():
    dot = Layout("dot", ["a"], [], "a")
    assert dot.adjacency().tolist() == [[[1.0]], [[0.0]], [[0.0]]]
    assert dot.parents.tolist() == dot.flip.tolist() == [0]


def test_unknown_strategy():
    with pytest.raises(InputError, match="'spatail'.*did you mean 'spatial'"):
        Layout(**BODY).adjacency("spatail")


def test_indices_and_parents():
    body = Layout(**BODY)
    assert (body.num_joints, body.center_index) == (5, NECK)
    assert body.bone_indices == ((1, 0), (2, 0), (3, 0), (4, 2), (2, 3))
    # lhip has two bones: its first one counts. neck has none: it is its own parent.
    assert body.parents.tolist() == [0, 0, 0, 0, 2]
    assert body.parents.dtype == body.flip.dtype == torch.int64


@pytest.mark.parametrize("get", ["flip", "parents", "adjacency"])
def test_writing_into_a_result_spoils_no_later_one(get):
    body = Layout(**BODY)

    def result():
        value = getattr(body, get)
        return value() if callable(value) else value

    before = result().clone()
    result().fill_(-1)
    assert torch.equal(result(), before)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("lhip", "rhip"),
        ("lear", "rear"),
        ("LFHD", "RFHD"),
        ("LUpperArm", "RUpperArm"),
        ("LEFT_EYE", "RIGHT_EYE"),
        ("MOUTH_LEFT", "MOUTH_RIGHT"),
        ("ShoulderLeft", "ShoulderRight"),
        ("LeftArm", "RightArm"),
        ("left_hip", "right_hip"),
        ("hip_l", "hip_r"),
        ("Hand.L", "Hand.R"),
        ("wingL", "wingR"),
        ("forelegL4", "forelegR4"),
        ("mixamorig:LeftArm", "mixamorig:RightArm"),
        ("Bip01 L Hand", "Bip01 R Hand"),
        ("arm_left_1", "arm_right_1"),
        ("L1", "R1"),
        ("def-c_l_foot.001", "def-c_r_foot.001"),
        ("hand (LEFT)", "hand (RIGHT)"),
        ("Left_Foot.L", "Right_Foot.R"),
    ],
)
@pytest.mark.parametrize("swap", [False, True])
def test_flip_from_names(left, right, swap):
    joints = [right, "lumbar", left] if swap else [left, "lumbar", right]
    layout = Layout("pair", joints, [], "lumbar")
    assert layout.mirror_pairs == ((left, right),)
    assert layout.flip.tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    "joints",
    [
        ["lback", "backl", "backr"],  # no mirrored name; an ending without a mark says nothing
        ["left", "Right", "light"],  # upper and lower case must agree
        ["RBAK", "LHIP", "rhip"],
        ["pelvis", "lumbar", "L5", "T12L", "C7", "spine_l3", "R12"],  # no partner of their own
        ["handle_a", "handre_a", "MODEL", "MODER", "shoulder", "shourder"],  # letters within words
    ],
)
def test_no_flip_where_the_mirrored_name_is_missing(joints):
    assert Layout("none", joints, [], joints[0]).mirror_pairs == ()


def test_a_name_with_two_sides_changes_one_where_that_is_a_joint():
    joints = ["m", "L_L", "L_R", "R_L", "R_R"]
    assert Layout("grid", joints, [], "m").mirror_pairs == (("L_L", "R_L"), ("L_R", "R_R"))


def test_given_flip_replaces_the_rule():
    layout = Layout(**BODY, flip=[["head", "lkne"]])
    assert layout.flip.tolist() == [0, 4, 2, 3, 1]
    assert Layout(**BODY, flip=[]).flip.tolist() == [0, 1, 2, 3, 4]


def test_equal_hashable_frozen_short():
    body = Layout(**BODY)
    twin = Layout("body", tuple(BODY["joints"]), tuple(map(tuple, BODY["bones"])), "neck")
    assert body == twin and hash(body) == hash(twin)
    for change in (
        {"name": "other"},
        {"center": "head"},
        {"aliases": ["b"]},
        {"flip": []},
        {"bones": BODY["bones"][:-1]},
        {"outside_graph": BODY["bones"][:1]},
        {"joints": ["neck", "head", "lhip", "rhip", "lkne", "x"]},
    ):
        assert Layout(**(BODY | change)) != body
    with pytest.raises(AttributeError):
        body.center = "head"
    assert repr(body) == "Layout('body', 5 joints, 5 bones, center 'neck')"
    assert pickle.loads(pickle.dumps(body)) == copy.deepcopy(body) == body


def test_dict_and_back():
    body = Layout(**BODY, aliases=["Body+5"], outside_graph=[["lhip", "rhip"]])
    fields = body.to_dict()
    assert fields == BODY | {
        "aliases": ["Body+5"],
        "flip": [["lhip", "rhip"]],
        "outside_graph": [["lhip", "rhip"]],
    }
    assert Layout.from_dict(fields) == body
    assert Layout.from_dict(BODY) == Layout(**BODY)
    fields["joints"].append("spoiled")
    assert body.to_dict()["joints"] == BODY["joints"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "My Body"}, "name: 'My Body' is no layout name; use lower-case letters"),
        ({"name": 5}, "name: 5 is no layout name"),
        ({"name": ""}, "name: '' is no layout name"),
        ({"joints": "neck"}, "joints: got 'neck', wanted a list of names"),
        ({"joints": ["neck", 7]}, "joints: entry 1 is 7; wanted a name in quotes"),
        ({"joints": ["neck", " "]}, "joints: entry 1 is ' '; wanted a name"),
        ({"joints": []}, "joints: got 0, wanted 1 to 128 names"),
        ({"joints": [f"j{i}" for i in range(129)]}, "joints: got 129, wanted 1 to 128 names"),
        ({"joints": ["a", "b", "a"]}, "joints: 'a' is both entry 0 and entry 2; give each"),
        ({"center": "nekc"}, "center: 'nekc' is not among the joints; did you mean 'neck'?"),
        ({"center": None}, "center: None is not among the joints"),
        ({"bones": "neck"}, "bones: got 'neck', wanted a list of pairs"),
        ({"bones": ["head"]}, "bones: entry 0 is 'head'; wanted a pair"),
        ({"bones": [["head", "neck", "lhip"]]}, "bones: entry 0 is ['head', 'neck', 'lhip']; want"),
        (
            {"bones": [["head", "neck"], ["lhpi", "neck"]]},
            "bones: entry 1 ['lhpi', 'neck'] names 'lhpi', which is not among the joints; "
            "did you mean 'lhip'?",
        ),
        ({"bones": [["head", ["x"]]]}, "bones: entry 0 ['head', ['x']] names ['x'], which is not"),
        ({"bones": [["head", "head"]]}, "bones: entry 0 pairs 'head' with itself; name two joints"),
        (
            {"bones": [["head", "neck"], ["lhip", "neck"], ["neck", "head"]]},
            "bones: entries 0 and 2 both connect 'neck' and 'head'; remove one",
        ),
        (
            {"bones": [["lkne", "head"], ["head", "neck"], ["neck", "lhip"], ["lhip", "head"]]},
            "bones: the parents run in a circle, head > neck > lhip > head; write each bone as",
        ),
        (
            {"bones": [[parent, child] for child, parent in BODY["bones"]]},
            "bones: all of them are written [parent, child], away from the center 'neck'; "
            "write [child, parent], such as ['head', 'neck']",
        ),
        (
            {"bones": [["lhip", "neck"], ["rhip", "neck"], ["lkne", "lhip"], ["rhip", "head"]]},
            "bones: 'head' has no parent: it is the second of ['rhip', 'head'], and never the "
            "first of a bone; write [child, parent], ['head', 'rhip']",
        ),
        (
            {"bones": [["rhip", "lhip"], ["lkne", "lhip"]]},
            "center: no bone joins 'neck' to another joint; add one to the bones, or choose a",
        ),
        ({"aliases": "b"}, "aliases: got 'b', wanted a list"),
        ({"aliases": ["my body"]}, "aliases: 'my body' is no alias; use letters, digits"),
        ({"aliases": ["BODY"]}, "aliases: 'BODY' repeats a name of the layout; remove it"),
        ({"flip": [["lhip", "rhpi"]]}, "flip: entry 0 ['lhip', 'rhpi'] names 'rhpi', which is not"),
        ({"flip": [["lhip", "lhip"]]}, "flip: entry 0 pairs 'lhip' with itself; name two joints"),
        (
            {"flip": [["lhip", "rhip"], ["head", "lhip"]]},
            "flip: entry 1 ['head', 'lhip'] pairs 'lhip' a second time; a joint has one mirror",
        ),
        (
            {"outside_graph": [["neck", "head"]]},
            "outside_graph: entry 0 ['neck', 'head'] is not among the bones; list it there too",
        ),
        (
            {"outside_graph": [["head", "neck"], ["head", "neck"]]},
            "outside_graph: a bone is listed twice; remove one",
        ),
    ],
)
def test_refusals_name_the_key_and_the_mend(change, message):
    with pytest.raises(InputError) as caught:
        Layout.from_dict(BODY | change, source="my.toml")
    text = str(caught.value)
    assert message in text
    assert text.startswith("my.toml: ") and "\n" not in text


def test_128_joints_are_allowed():
    assert Layout("big", [f"j{i}" for i in range(128)], [], "j0").adjacency().shape[1] == 128


@pytest.fixture
def noted(caplog, monkeypatch):
    """Makes a layout of BODY with changes: the notes that are logged."""
    monkeypatch.setattr(_notes, "_logged", set())

    def make(**changes):
        caplog.clear()
        Layout(**BODY | changes)
        assert {(r.levelname, r.name.split(".")[0]) for r in caplog.records} <= {
            ("WARNING", "msclr")
        }
        return [record.getMessage() for record in caplog.records]

    return make


def test_a_sound_layout_is_not_noted(noted):
    assert noted() == []
    assert noted(name="one", joints=["neck"], bones=[]) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"joints": [*BODY["joints"], "tail", "tip"]}, "no bones join 'tail', 'tip' to its center"),
        ({"bones": [], "flip": []}, "it has no bones, so that its graph links no joints"),
        (
            {"bones": [["neck", "head"], *BODY["bones"][1:]]},
            "its bones lead to 'head' and not to its center 'neck'; unless that is meant, write",
        ),
        (
            {
                "joints": ["neck", "a", "b"],
                "bones": [["a", "neck"], ["b", "neck"]],
            },
            "no left-right pair is found among the names of its joints, so that a mirror flip",
        ),
    ],
)
def test_what_is_odd_is_noted_once(noted, changes, message):
    (note,) = noted(**changes)
    assert note.startswith(f"layout body: {message}") and "\n" not in note
    assert noted(**changes) == []
    (other,) = noted(**changes, name="other")
    assert other.startswith(f"layout other: {message}")


def test_a_layout_that_says_it_has_no_sides_is_not_noted(noted):
    one_sided = {"joints": ["neck", "a"], "bones": [["a", "neck"]]}
    assert noted(**one_sided, flip=[]) == []
    assert len(noted(**one_sided)) == 1
