"""Generated ``.skeleton`` files: moving bodies in the form of NTU RGB+D, and every quirk of it.

`Body` is text of one person over time; `file_text` puts bodies into a file, `write_tree` fills a
folder. All follows from the seeds. A body's frames are formatted in one go, 4 ms a hundred frames,
and `write_tree` can share a few bodies among many files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

JOINTS = 25
FIRST_ID = 72057594037931100  # as Kinect counts them

# A standing person, metres, facing the sensor: the order of kinectv2_25.
_STANDING = np.array(
    [
        [0, 0, 0], [0, 0.3, 0], [0, 0.58, 0], [0, 0.7, 0],  # spine base, middle, neck, head
        [-0.18, 0.47, 0], [-0.25, 0.22, 0], [-0.28, -0.02, 0.05], [-0.29, -0.1, 0.06],
        [0.18, 0.47, 0], [0.25, 0.22, 0], [0.28, -0.02, 0.05], [0.29, -0.1, 0.06],
        [-0.08, -0.04, 0], [-0.1, -0.45, 0], [-0.1, -0.82, 0.02], [-0.11, -0.88, -0.1],
        [0.08, -0.04, 0], [0.1, -0.45, 0], [0.1, -0.82, 0.02], [0.11, -0.88, -0.1],
        [0, 0.5, 0], [-0.3, -0.17, 0.06], [-0.25, -0.13, 0.02], [0.3, -0.17, 0.06],
        [0.25, -0.13, 0.02],
    ]
)  # (V, 3)  # fmt: skip


def moving_body(frames: int, seed: int, still: bool = False) -> np.ndarray:
    """(T, V, 3) metres: a person 2 to 4 m off who walks a little and swings all joints smoothly."""
    rng = np.random.default_rng(seed)
    time = np.arange(frames)[:, None, None] / 30  # seconds
    joints = _STANDING * rng.uniform(0.85, 1.1)
    turn = rng.uniform(-0.8, 0.8)
    rotation = np.array(
        [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    )
    far = np.linalg.norm(_STANDING, axis=1, keepdims=True)  # hands and feet swing widest
    swing = 0.2 * far * rng.normal(size=(JOINTS, 3)) * (0.01 if still else 1)
    waves = np.sin(2 * np.pi * rng.uniform(0.3, 1.2) * time + rng.uniform(0, 6, (JOINTS, 3)))
    place = np.array([rng.uniform(-1, 1), rng.uniform(-0.3, 0.1), rng.uniform(2, 4)])
    walk = 0.1 * rng.normal(size=3) * time * (0.1 if still else 1)
    noise = rng.normal(0, 0.004, (frames, JOINTS, 3))
    return (joints + swing * waves) @ rotation + place + walk + noise


def ghost_body(frames: int, seed: int) -> np.ndarray:
    """(T, V, 3): furniture taken for a person, wider than tall and hardly moving."""
    rng = np.random.default_rng(seed)
    spread = rng.uniform(-1, 1, (JOINTS, 3)) * [0.6, 0.15, 0.2]
    return spread + [0.5, -0.6, 3.0] + rng.normal(0, 0.003, (frames, JOINTS, 3))


@dataclass(frozen=True)
class Body:
    """Text of one person: where in the clip, under which id, and a text for each frame."""

    body_id: int | str
    start: int
    texts: Sequence[str]  # of the frames start, start + 1, …; "" where the body is absent


def body(
    xyz: np.ndarray,
    body_id: int | str = FIRST_ID,
    start: int = 0,
    absent: Iterable[int] = (),
    seed: int = 0,
) -> Body:
    """A body as text. ``absent``: positions in ``xyz`` (T, V, 3) at which it is left out."""
    frames = len(xyz)
    rng = np.random.default_rng(seed)
    fields = np.empty((frames, JOINTS, 12))
    fields[..., :3] = xyz
    scale = 1 / np.maximum(xyz[..., 2:], 0.1)
    fields[..., 3:5] = [256, 212] + [366, -366] * xyz[..., :2] * scale
    fields[..., 5:7] = [960, 540] + [1060, -1060] * xyz[..., :2] * scale
    quaternions = rng.normal(size=(JOINTS, 4)) + rng.normal(0, 0.02, (frames, JOINTS, 4))
    fields[..., 7:11] = quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True)
    fields[:, [3, 15, 19, 21, 22, 23, 24], 7:11] = 0  # Kinect knows none of head, feet, fingers
    fields[..., 11] = rng.choice([2, 1, 0], (frames, JOINTS), p=[0.9, 0.08, 0.02])
    lean = rng.uniform(-0.3, 0.3, (frames, 2))
    head = f"{body_id} 0 1 1 1 1 0 %.7g %.7g 2\n{JOINTS}\n"
    one = head + ("%.7g " * 11 + "%d\n") * JOINTS
    values = np.concatenate([lean, fields.reshape(frames, -1)], axis=1)  # (T, 2 + 12 V)
    texts = [one % tuple(row) for row in values.tolist()]
    for position in absent:
        texts[position] = ""
    return Body(body_id, start, texts)


def file_text(frames: int, bodies: Sequence[Body]) -> str:
    """A file of ``frames`` frames; a frame lists its bodies in the order given."""
    parts = [f"{frames}\n"]
    for frame in range(frames):
        here = [b.texts[frame - b.start] for b in bodies if 0 <= frame - b.start < len(b.texts)]
        here = [text for text in here if text]
        parts.append(f"{len(here)}\n")
        parts += here
    return "".join(parts)


# Quirks of whole files ------------------------------------------------------------------------


def one_person(frames: int = 6, seed: int = 0) -> str:
    return file_text(frames, [body(moving_body(frames, seed), seed=seed)])


def empty_frames(frames: int = 8, seed: int = 0) -> str:
    """Body count 0 in the first, a middle and the last frame."""
    person = body(moving_body(frames, seed), absent=(0, frames // 2, frames - 1), seed=seed)
    return file_text(frames, [person])


def coming_and_going(frames: int = 12, seed: int = 0) -> str:
    """The first leaves, comes back and ends early; the second starts late, listed before it."""
    third = frames // 3
    first = body(moving_body(frames - 1, seed), FIRST_ID + 7, absent=range(third, third + 2))
    second = body(moving_body(frames - third, seed + 1), FIRST_ID + 3, start=third)
    return file_text(frames, [second, first])


def two_ids(frames: int = 10, seed: int = 0) -> str:
    """One person whom the sensor loses and finds again under another id."""
    xyz, half = moving_body(frames, seed), frames // 2
    return file_text(frames, [body(xyz[:half], 5), body(xyz[half + 1 :], 9, start=half + 1)])


def many_bodies(frames: int = 5, seed: int = 0, count: int = 4) -> str:
    """More than two; the last is a ghost."""
    people = [body(moving_body(frames, seed + i), FIRST_ID + i) for i in range(count - 1)]
    return file_text(frames, [*people, body(ghost_body(frames, seed), FIRST_ID + count)])


def long_ids(frames: int = 3, seed: int = 0) -> str:
    """20 digits, the largest of 64 bits and one past it."""
    ids = (10**19, 2**64 - 1, 2**64, 99999999999999999999)
    return file_text(frames, [body(moving_body(frames, seed + i), b) for i, b in enumerate(ids)])


def crlf(text: str) -> str:
    return text.replace("\n", "\r\n")


def trailing_blanks(text: str) -> str:
    return text.replace("\n", " \t \n")


def leading_and_wide_blanks(text: str) -> str:
    return "  " + text.replace(" ", " \t ").replace("\n", "\n ")


def blank_end(text: str) -> str:
    return text + "\n \n\r\n\t"


def no_last_newline(text: str) -> str:
    return text.removesuffix("\n")


def with_numbers(text: str, numbers: Sequence[str], seed: int = 0) -> str:
    """Coordinates replaced by the given texts, each at least once if there are joints enough."""
    rng = np.random.default_rng(seed)
    lines = text.split("\n")
    joints = [i for i, line in enumerate(lines) if line.count(" ") == 11]
    for count, where in enumerate(rng.permutation(joints)):
        fields = lines[where].split(" ")
        fields[count % 7] = numbers[count % len(numbers)]
        lines[where] = " ".join(fields)
    return "\n".join(lines)


NUMBERS = (
    "1e-05", "-0", "0", "-0.0", "nan", "-nan", "NaN", "inf", "-inf", "Infinity", "+INF", "+1.5",
    "1.", ".5", "-.5", "007", "1E+3", "1e400", "-1e400", "1e-400", "5e-324", "2.5e-324", "1e-45",
    "7.006492321624086e-46", "1.1754943508222875e-38", "3.4028235677973366e+38", "9007199254740993",
    "9007199254740992", "0.1000000000000000055511151231257827", "123456789012345678901234567890",
    "0." + "0" * 30 + "1", "1" + "0" * 30 + "e-30", "1.7976931348623159e308",
    "0e999999999999999999", "1e-99999999999999999999", "1e99999999999999999999",
    "8.5899345920000005", "0.30000001192092896", "1e-0000000000000000000000005",
    "1.00000000000000011102230246251565404236316680908203125",  # halfway between two doubles
    "1.00000000000000011102230246251565404236316680908203125" + "0" * 800 + "1",
    "1.000000059604644775390625", "1.0000000596046447753906251",  # and two floats
)  # fmt: skip

# Texts that Python's float takes, or nearly so, and that are no numbers here.
NO_NUMBERS = (
    "1_0", "1e", "e5", ".", "-", "+", "--1", "+-1", "1.2.3", "0x10", "1e+", "1e5.0", "nan(1)",
    "infinit", "in", "nanx", "1,5", "1d5", "#", "\u0661", "1\x00", "\x00", "-1.#IND", "1.#QNAN",
)  # fmt: skip

WHOLE_FILES: dict[str, Callable[[], str]] = {
    "one person": one_person,
    "empty frames": empty_frames,
    "coming and going": coming_and_going,
    "two ids": two_ids,
    "many bodies": many_bodies,
    "long ids": long_ids,
    "no frames": lambda: "0\n",
    "no bodies": lambda: "3\n0\n0\n0\n",
    "numbers": lambda: with_numbers(one_person(12), NUMBERS),
}
"""Valid files by what is odd about them."""

FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "crlf": crlf,
    "trailing blanks": trailing_blanks,
    "wide blanks": leading_and_wide_blanks,
    "blank end": blank_end,
    "no last newline": no_last_newline,
    "byte-order mark": lambda text: "\ufeff" + text,  # as Notepad saves UTF-8
}
"""Ways to write any of them down; what they say stays the same."""


# Trees ----------------------------------------------------------------------------------------


def clip_names(count: int, setups=(1, 2), cameras=(1, 2, 3), actions=60) -> list[str]:
    """``count`` unlike names SsssCcccPpppRrrrAaaa that spread over performers and actions."""
    names = []
    for i in range(count):
        camera = cameras[i % len(cameras)]
        action = 1 + i // len(cameras) % actions
        rest = i // len(cameras) // actions
        performer, rest = 1 + rest % 40, rest // 40
        setup, rest = setups[rest % len(setups)], rest // len(setups)
        names.append(f"S{setup:03}C{camera:03}P{performer:03}R{1 + rest:03}A{action:03}")
    return names


def write_tree(
    folder: Path,
    names: Iterable[str],
    frames: int | tuple[int, int] = (60, 120),
    seed: int = 0,
    variety: int = 16,
    pairs: Iterable[int] = range(50, 61),
    ghosts: float = 0.0,
    lost: float = 0.0,
    form: Callable[[str], str] = str,
) -> list[Path]:
    """A file NAME.skeleton for each name; returns their paths.

    Args:
        frames: of every file, or the least and the most of them.
        variety: how many unlike bodies are made; the files share their texts (each file its own
            length and choice). The time is that of making them, and then of writing the bytes.
        pairs: action numbers with two people, as in NTU's A050 to A060.
        ghosts: share of files with a ghost besides.
        lost: share of files whose first person is lost for a frame and found under another id.
    """
    folder.mkdir(parents=True, exist_ok=True)
    low, high = (frames, frames) if isinstance(frames, int) else frames
    people = [body(moving_body(high, seed + i), seed=seed + i) for i in range(variety)]
    ghost = body(ghost_body(high, seed), FIRST_ID + 99, seed=seed)
    paths = []
    for name in names:
        rng = np.random.default_rng([seed, *name.encode()])
        length = int(rng.integers(low, high + 1))
        chosen = rng.permutation(variety)[:2]
        cast = _cast(people, chosen if int(name[-3:]) in pairs else chosen[:1], rng, lost, length)
        if rng.random() < ghosts:
            cast.append(ghost)
        path = folder / f"{name}.skeleton"
        path.write_bytes(form(file_text(length, cast)).encode())
        paths.append(path)
    return paths


def _cast(people, chosen, rng, lost: float, length: int) -> list[Body]:
    """Bodies under ids of their own; the first, now and then, under two."""
    cast = [_renamed(people[i], FIRST_ID + slot) for slot, i in enumerate(chosen)]
    if rng.random() < lost and length > 3:
        first, at = cast[0], length // 2
        found = _renamed(Body(first.body_id, at + 1, first.texts[at + 1 :]), FIRST_ID + 50)
        cast[:1] = [Body(first.body_id, 0, first.texts[:at]), found]
    return cast


def _renamed(who: Body, body_id: int) -> Body:
    old, new = f"{who.body_id} ", f"{body_id} "
    return Body(body_id, who.start, [text.replace(old, new, 1) for text in who.texts])
