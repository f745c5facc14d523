"""Skeleton conventions: joint names, bones, centre, left-right flip and graph.

>>> from msclr import layouts
>>> layouts.get("kinectv2_25")
Layout('kinectv2_25', 25 joints, 24 bones, center 'spineshoulder')

A `.toml` file next to this one describes each convention that is shipped; `load` reads a file of
your own and `register` puts it under its name. `derivation` makes one convention's joints of
another's, `passage` also where some of its places lack, and `closest` finds the one that loses
least.
"""

from msclr.layouts.derive import derivable, derivation, derive_joints
from msclr.layouts.layout import Layout
from msclr.layouts.passages import Passage, closest, passage
from msclr.layouts.registry import get, load, names, register

__all__ = [
    "Layout",
    "Passage",
    "closest",
    "derivable",
    "derivation",
    "derive_joints",
    "get",
    "load",
    "names",
    "passage",
    "register",
]
