"""What the names of NTU RGB+D clips say: the splits of the protocols, skip lists and classes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from msclr.errors import InputError

_PATTERN = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})", re.ASCII)

# The performers that train in the cross-subject protocols: those of NTU-60, then the further ones.
_XSUB_60 = frozenset([1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38])
_XSUB_120 = _XSUB_60 | frozenset(
    [45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86]
    + [89, 91, 92, 93, 94, 95, 97, 98, 100, 103]
)
_XVIEW_CAMERAS = (2, 3)

# Clips of the complete data set that are not on the skip list, as its authors publish them.
PUBLISHED = {
    ("ntu60", "xsub"): {"train": 40_091, "val": 16_487},
    ("ntu60", "xview"): {"train": 37_646, "val": 18_932},
    ("ntu120", "xsub"): {"train": 63_026, "val": 50_919},
    ("ntu120", "xset"): {"train": 54_468, "val": 59_477},
}
SETUPS = {"ntu60": 17, "ntu120": 32}
ACTIONS = {"ntu60": 60, "ntu120": 120}
_SKIPPED = {"ntu60": "missing_60.txt", "ntu120": "missing_120.txt"}


class ClipName(NamedTuple):
    """The five numbers of SsssCccPpppRrrrAaaa, each from 1 on: S001C002P003R001A055."""

    setup: int
    camera: int
    performer: int
    replication: int
    action: int

    def __str__(self) -> str:
        return "S{:03}C{:03}P{:03}R{:03}A{:03}".format(*self)


def parse_name(text: str) -> ClipName:
    """The numbers in the name of a clip. Raises InputError for any other text."""
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise InputError(
            f"{text!r} is no name of an NTU clip; wanted one like S001C002P003R001A055"
        )
    return ClipName(*map(int, match.groups()))


def check_protocol(dataset: str, protocol: str) -> None:
    """Raise InputError unless `protocol` is one of `dataset`, and that "ntu60" or "ntu120"."""
    if dataset not in SETUPS:
        raise InputError(f"dataset {dataset!r} is not known; choose ntu60 or ntu120")
    if (dataset, protocol) not in PUBLISHED:
        known = [name for of, name in PUBLISHED if of == dataset]
        raise InputError(f"{dataset} has no protocol {protocol!r}; choose {' or '.join(known)}")


def belongs(name: ClipName, dataset: str) -> bool:
    """Whether a clip is part of `dataset`: ntu60 is the first 17 setups and 60 actions."""
    return 1 <= name.setup <= SETUPS[dataset] and 1 <= name.action <= ACTIONS[dataset]


def split_of(name: ClipName, dataset: str, protocol: str) -> str:
    """ "train" or "val".

    xsub: by performer, 20 of 40 train in NTU-60 and 53 of 106 in NTU-120 (Shahroudy et al., CVPR
        2016; Liu et al., TPAMI 2019). xview: cameras 2 and 3 train. xset: even setups train.
    """
    if protocol == "xsub":
        train = name.performer in (_XSUB_60 if dataset == "ntu60" else _XSUB_120)
    elif protocol == "xview":
        train = name.camera in _XVIEW_CAMERAS
    else:
        train = name.setup % 2 == 0
    return "train" if train else "val"


def skip_list(dataset: str) -> frozenset[str]:
    """The clips whose skeletons are missing or broken, as the data set's authors list them."""
    return frozenset(_lines(_SKIPPED[dataset]))


def class_names(dataset: str) -> list[str]:
    """The names of the actions A1, A2, …, which are labels 0, 1, …"""
    rows = [line.split("\t") for line in _lines("classes.tsv")]
    return [name for _, name in rows[: ACTIONS[dataset]]]


def _lines(file: str) -> list[str]:
    return (Path(__file__).parent / file).read_text(encoding="utf-8").splitlines()
