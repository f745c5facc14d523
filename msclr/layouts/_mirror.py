"""Left-right pairs of joints, read from their names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_WORDS = (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT"))
_LETTERS = (("l", "r"), ("L", "R"))
_MARKED_LETTERS = (("_l", "_r"), ("_L", "_R"), (".l", ".r"), (".L", ".R"))
_RIGHT_OF = dict((*_WORDS, *_LETTERS))

# The parts of a name: "mixamorig:LeftArm" is mixamorig, Left, Arm; "forelegL4" is foreleg, L, 4.
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def pairs_from_names(joints: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The (left, right) pairs among `joints`, in the order of the left joints.

    A name counts as left only where its mirrored name is a joint too: "lback" and "rback" are a
    pair, "lumbar" is in none. A joint is in one pair at most.
    """
    known = set(joints)
    pairs: list[tuple[str, str]] = []
    taken: set[str] = set()
    for joint in joints:
        right = next((name for name in _right_names(joint) if name in known - taken), None)
        if right is not None and joint not in taken:
            pairs.append((joint, right))
            taken |= {joint, right}
    return tuple(pairs)


def _right_names(joint: str) -> Iterator[str]:
    """The names that the right partner of `joint` could have, the surest first."""
    for left, right in (*_WORDS, *_LETTERS):
        if joint.startswith(left):
            yield right + joint.removeprefix(left)
    for left, right in (*_WORDS, *_MARKED_LETTERS):
        if joint.endswith(left):
            yield joint.removesuffix(left) + right
    sides = [match for match in _PART.finditer(joint) if match[0] in _RIGHT_OF]
    for side in sides:  # anywhere, but as a part of its own
        yield joint[: side.start()] + _RIGHT_OF[side[0]] + joint[side.end() :]
    if len(sides) > 1:  # "LeftHand_L"
        yield _PART.sub(lambda match: _RIGHT_OF.get(match[0], match[0]), joint)
