"""What each sensor sees of a body: the joints of a convention, their places and their errors."""

import zlib
from typing import NamedTuple

import numpy as np

from .body import BONES

# Tunable: metres and probabilities.
PLACEMENT = 0.008  # sd of a convention's own fixed displacement of each joint
FITTING = 0.008  # sd of a further displacement, constant over a clip
JITTER = {"kinectv2_25": 0.018, "smpl_24": 0.008, "smplx_42": 0.008, "berkeley_mhad_43": 0.003}
DROPOUT = 0.3  # probability that a view of a clip loses a joint for a few frames

# Points of the body: (bone, x, y, z), metres in the bone's frame on a body of 1.75 m.
_MIDDLE = {
    "pelvis": ("pelvis", 0, 0, 0),
    "belly": ("waist", 0, 0, 0),
    "waist": ("waist", 0, 0.08, 0),
    "bellyskin": ("waist", 0, 0.02, 0.11),
    "thorax": ("chest", 0, 0, 0),
    "breastbone": ("chest", 0, 0.05, 0.12),
    "uppertrunk": ("chest", 0, 0.15, 0),
    "upperback": ("chest", 0, 0.14, -0.08),
    "lowerback": ("waist", 0, 0.03, -0.10),
    "neck": ("neck", 0, 0, 0),
    "throat": ("neck", 0, 0.05, 0.01),
    "skull": ("head", 0, 0, 0),
    "jaw": ("head", 0, 0.01, 0.06),
    "nose": ("head", 0, 0.06, 0.11),
    "face": ("head", 0, 0.09, 0.02),
    "crown": ("head", 0, 0.20, 0),
}
# On the left; "~" means l. Their mirror images are made below.
_SIDES = {
    "~temple": ("head", 0.075, 0.12, 0.03),
    "~eye": ("head", 0.032, 0.09, 0.09),
    "~eyeball": ("head", 0.032, 0.09, 0.075),
    "~ear": ("head", 0.075, 0.07, 0),
    "~clavicle": ("chest", 0.07, 0.14, 0.01),
    "~backrib": ("chest", 0.10, -0.02, -0.10),
    "~flank": ("waist", 0.13, 0.06, 0.06),
    "~shoulder": ("~upperarm", 0, 0, 0),
    "~acromion": ("chest", 0.16, 0.20, 0),
    "~deltoid": ("~upperarm", 0.045, -0.06, 0),
    "~biceps": ("~upperarm", 0.045, -0.16, 0.02),
    "~elbow": ("~forearm", 0, 0, 0),
    "~elbowskin": ("~forearm", 0.035, 0.0, -0.01),
    "~wrist": ("~hand", 0, 0, 0),
    "~wristskin": ("~hand", 0.010, 0.01, 0),
    "~palm": ("~hand", 0, -0.08, 0),
    "~knuckle": ("~hand", 0, -0.09, 0),
    "~knuckle2": ("~hand", 0.01, -0.085, 0.035),
    "~knuckle5": ("~hand", 0.01, -0.08, -0.035),
    "~thumb": ("~hand", -0.02, -0.08, 0.06),
    "~fingertip": ("~hand", -0.01, -0.17, 0),
    "~hip": ("~thigh", 0, 0, 0),
    "~hiphigh": ("pelvis", 0.085, 0.035, 0),
    "~hiplow": ("~thigh", 0, -0.03, 0.01),
    "~hipback": ("pelvis", 0.05, 0.06, -0.11),
    "~hipfront": ("pelvis", 0.11, 0.07, 0.09),
    "~hipside": ("pelvis", 0.17, 0.02, 0),
    "~thighskin": ("~thigh", 0.08, -0.22, 0.03),
    "~knee": ("~shank", 0, 0, 0),
    "~kneeskin": ("~shank", 0.05, 0, 0),
    "~ankle": ("~foot", 0, 0, 0),
    "~ankleskin": ("~foot", 0.035, 0.005, -0.005),
    "~heel": ("~foot", 0, -0.045, -0.06),
    "~instep": ("~foot", 0, -0.03, 0.09),
    "~ball": ("~foot", 0, -0.055, 0.13),
    "~bigtoe": ("~foot", -0.02, -0.06, 0.19),
    "~littletoe": ("~foot", 0.04, -0.06, 0.16),
}

# The joints of each convention in their order, as joint:point.
_JOINTS = {
    "kinectv2_25": """
        spinebase:pelvis spinemid:waist neck:throat head:face
        lsho:lshoulder lelb:lelbow lwri:lwrist lhan:lpalm
        rsho:rshoulder relb:relbow rwri:rwrist rhan:rpalm
        lhip:lhiphigh lkne:lknee lank:lankle lfoo:linstep
        rhip:rhiphigh rkne:rknee rank:rankle rfoo:rinstep
        spineshoulder:uppertrunk lhandtip:lfingertip lthu:lthumb rhandtip:rfingertip rthu:rthumb
        """,
    "smpl_24": """
        pelv:pelvis lhip:lhiplow rhip:rhiplow spi1:belly lkne:lknee rkne:rknee spi2:waist
        lank:lankle rank:rankle spi3:thorax ltoe:lball rtoe:rball neck:neck
        lcla:lclavicle rcla:rclavicle head:skull lsho:lshoulder rsho:rshoulder
        lelb:lelbow relb:relbow lwri:lwrist rwri:rwrist lhan:lpalm rhan:rpalm
        """,
    "smplx_42": """
        pelv:pelvis lhip:lhip rhip:rhip bell:belly lkne:lknee rkne:rknee spin:waist
        lank:lankle rank:rankle thor:thorax ltoe:lball rtoe:rball neck:neck
        lcla:lclavicle rcla:rclavicle head:skull lsho:lshoulder rsho:rshoulder
        lelb:lelbow relb:relbow lwri:lwrist rwri:rwrist jaw:jaw leyehf:leyeball reyehf:reyeball
        lmiddle1:lknuckle rmiddle1:rknuckle nose:nose reye:reye leye:leye rear:rear lear:lear
        lto2:lbigtoe lto3:llittletoe lhee:lheel rto2:rbigtoe rto3:rlittletoe rhee:rheel
        lthu:lthumb lmiddle:lfingertip rthu:rthumb rmiddle:rfingertip
        """,
    "berkeley_mhad_43": """
        head:crown lhead:ltemple rhead:rtemple rback:rbackrib backl:lowerback backt:upperback
        lback:lbackrib lside:lflank bell:bellyskin chest:breastbone rside:rflank
        lsho1:lacromion lsho2:ldeltoid larm:lbiceps lelb:lelbowskin lwri:lwristskin
        lhan1:lknuckle lhan2:lknuckle2 lhan3:lknuckle5
        rsho1:racromion rsho2:rdeltoid rarm:rbiceps relb:relbowskin rwri:rwristskin
        rhan1:rknuckle rhan2:rknuckle2 rhan3:rknuckle5
        lhipb:lhipback lhipf:lhipfront lhipl:lhipside lleg:lthighskin lkne:lkneeskin
        lank:lankleskin lhee:lheel lfoo:linstep
        rhipb:rhipback rhipf:rhipfront rhipl:rhipside rleg:rthighskin rkne:rkneeskin
        rank:rankleskin rhee:rheel rfoo:rinstep
        """,
}


class Sensor(NamedTuple):
    """One convention. `skin` turns posed bones into joints in one matrix product."""

    joints: tuple[str, ...]
    skin: np.ndarray  # (B * 4, V): for each joint its place in its bone's frame, and a 1
    key: int  # keeps the random numbers of one convention apart from another's
    jitter: float  # metres

    def observe(self, bones: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The joints as this sensor reports them: bones (M, T, 3, B, 4) -> (M, T, V, 3)."""
        bodies, frames = bones.shape[:2]
        seen = bones.reshape(bodies * frames * 3, -1) @ self.skin
        seen = seen.reshape(bodies, frames, 3, -1).transpose(0, 1, 3, 2)
        seen = seen + self.jitter * rng.standard_normal(seen.shape, np.float32)
        joints = seen.shape[2]
        seen += FITTING * rng.standard_normal((bodies, 1, joints, 3), np.float32)
        if rng.random() < DROPOUT:
            start, length = rng.integers(frames - 5), rng.integers(2, 6)
            lost = rng.integers(joints, size=rng.integers(1, 3))
            seen[rng.integers(bodies), start : start + length, lost] = 0.0
        return seen


def _point(name: str) -> tuple[int, np.ndarray]:
    if name in _MIDDLE:
        bone, *place = _MIDDLE[name]
        return BONES.index(bone), np.array(place)
    bone, x, y, z = _SIDES["~" + name[1:]]
    sign = {"l": 1, "r": -1}[name[0]]
    return BONES.index(bone.replace("~", name[0])), np.array([sign * x, y, z])


def _sensor(layout: str) -> Sensor:
    pairs = [item.split(":") for item in _JOINTS[layout].split()]
    key = zlib.crc32(layout.encode())
    displaced = np.random.default_rng(key).normal(0.0, PLACEMENT, (len(pairs), 3))
    skin = np.zeros((len(BONES), 4, len(pairs)), np.float32)
    for joint, (_, point) in enumerate(pairs):
        bone, place = _point(point)
        skin[bone, :3, joint] = place + displaced[joint]
        skin[bone, 3, joint] = 1.0
    names = tuple(joint for joint, _ in pairs)
    return Sensor(names, skin.reshape(-1, len(pairs)), key, JITTER[layout])


SENSORS = {layout: _sensor(layout) for layout in _JOINTS}
