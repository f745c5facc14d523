"""Landmarks read from the names of joints."""

import pytest

from msclr import layouts
from msclr.errors import InputError
from msclr.layouts import Layout
from msclr.layouts.propose import proposed_landmarks, with_landmarks

LIMBS = [
    side + limb
    for side in "lr"
    for limb in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist", "hand", "fingertip")
]
MARKERS = ("berkeley_mhad_43", "uiprmd_vicon_39")  # no hips among their names


def body(name, sided, middle=("Hips", "Spine", "Neck", "Head"), form="{side}{word}"):
    """A layout whose bones all lead to the first joint."""
    sides = ("Left", "Right") if "{side}" in form else ("l", "r")
    joints = [
        *middle,
        *(form.format(side=side, word=word, s=side) for side in sides for word in sided),
    ]
    return Layout(name, joints, [[joint, joints[0]] for joint in joints[1:]], joints[0])


@pytest.mark.parametrize("name", sorted(set(layouts.names()) - set(MARKERS)))
def test_names_give_the_limbs_of_every_shipped_layout(name):
    layout = layouts.get(name)
    found, own = proposed_landmarks(layout), dict(layout.landmarks)
    for limb in LIMBS:
        if limb in found and limb in own:
            assert own[limb] == ((found[limb], 1.0),), limb
    assert {"lknee", "rwrist", "lshoulder"} <= found.keys()


@pytest.mark.parametrize("name", MARKERS)
def test_markers_are_refused_with_what_is_missing(name):
    with pytest.raises(InputError, match=r"do not tell lhip, rhip.*table \[landmarks\]"):
        proposed_landmarks(layouts.get(name))


def test_joints_called_after_the_bone_that_they_begin():
    words = ("Shoulder", "Arm", "ForeArm", "Hand", "UpLeg", "Leg", "Foot", "ToeBase")
    found = proposed_landmarks(body("mixamo", words, form="mixamorig:{side}{word}"))
    got = {landmark: found[landmark] for landmark in found if landmark.startswith("l")}
    assert got == {
        "lhip": "mixamorig:LeftUpLeg",
        "lknee": "mixamorig:LeftLeg",
        "lankle": "mixamorig:LeftFoot",
        "lball": "mixamorig:LeftToeBase",
        "lclavicle": "mixamorig:LeftShoulder",
        "lshoulder": "mixamorig:LeftArm",
        "lelbow": "mixamorig:LeftForeArm",
        "lwrist": "mixamorig:LeftHand",
    }
    assert found["mid_hip"] == {"mixamorig:LeftUpLeg": 0.5, "mixamorig:RightUpLeg": 0.5}


def test_names_of_a_game_engine():
    words = ("clavicle", "upperarm", "lowerarm", "hand", "thigh", "calf", "foot", "ball")
    found = proposed_landmarks(body("engine", words, form="{word}_{s}"))
    assert (found["rshoulder"], found["relbow"]) == ("upperarm_r", "lowerarm_r")
    assert (found["rhip"], found["rknee"], found["rankle"]) == ("thigh_r", "calf_r", "foot_r")
    assert (found["rwrist"], found["rball"]) == ("hand_r", "ball_r") and "rhand" not in found


def test_a_foot_with_an_ankle_is_its_ball():
    words = ("Shoulder", "Elbow", "Wrist", "Hand", "Hip", "Knee", "Ankle", "Foot")
    found = proposed_landmarks(body("mine", words))
    assert (found["lankle"], found["lball"]) == ("LeftAnkle", "LeftFoot")
    assert (found["lwrist"], found["lhand"]) == ("LeftWrist", "LeftHand")


def test_what_is_proposed_is_shown():
    words = ("Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle")
    layout, note = with_landmarks(body("mine", words))
    assert dict(layout.landmarks)["lhip"] == (("LeftHip", 1.0),)
    assert "layout mine has no [landmarks]" in note and "lhip = LeftHip" in note


def test_a_layout_with_landmarks_keeps_them_and_a_known_one_gets_its_own():
    kinect = layouts.get("kinectv1_20")
    assert with_landmarks(kinect) == (kinect, "")
    bare = Layout.from_dict(kinect.to_dict())  # as older data sets and checkpoints have it
    assert not bare.landmarks and with_landmarks(bare)[0].landmarks == kinect.landmarks
    assert with_landmarks(bare)[1] == ""


def test_names_that_tell_nothing_are_refused_in_one_line():
    fly = Layout("fly", ["head", "wingL", "wingR"], [["wingL", "head"], ["wingR", "head"]], "head")
    with pytest.raises(InputError, match="layout fly has no") as caught:
        with_landmarks(fly)
    assert "\n" not in str(caught.value)
