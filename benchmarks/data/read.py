"""Reading `.skeleton` files from the page cache: ours against readers in plain Python.

The plain readers go line by line, with split() and float(), as code for NTU RGB+D does: `usual`
keeps every number of a file under its name, `joint_arrays` makes an array of each joint's x y z,
and `lean` converts nothing but what it keeps, x y z and the tracking state, and makes an array of
a body. `ours_in_python` is our own fallback, which checks every field that it reads. `mb_s` is
megabytes of text a second on one thread; `ours_2` is `read_skeletons` on two. `ratio` is our rate
over theirs, in the same run.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.options import positive
from benchmarks.runner import Case, Part, Setup
from msclr.data.skeleton import plain, read, read_skeleton, read_skeletons
from msclr.errors import InputError
from tests.data.skeleton_files import clip_names, write_tree

BODY_FIELDS = ["bodyID", "clippedEdges", "handLeftConfidence", "handLeftState"]
BODY_FIELDS += ["handRightConfidence", "handRightState", "isRestricted", "leanX", "leanY"]
BODY_FIELDS += ["trackingState"]
JOINT_FIELDS = ["x", "y", "z", "depthX", "depthY", "colorX", "colorY"]
JOINT_FIELDS += ["orientationW", "orientationX", "orientationY", "orientationZ", "trackingState"]


def lean(path: Path) -> dict[str, dict[int, tuple[np.ndarray, np.ndarray]]]:
    """id -> frame -> (V, 3) and (V,)."""
    bodies: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
    with open(path) as file:
        for frame in range(int(file.readline())):
            for _ in range(int(file.readline())):
                body_id = file.readline().split()[0]
                xyz, tracking = [], []
                for _ in range(int(file.readline())):
                    fields = file.readline().split()
                    xyz.append((float(fields[0]), float(fields[1]), float(fields[2])))
                    tracking.append(int(fields[11]))
                body = np.array(xyz, np.float32), np.array(tracking, np.uint8)
                bodies.setdefault(body_id, {})[frame] = body
    return bodies


def joint_arrays(path: Path) -> dict[str, dict[int, np.ndarray]]:
    """id -> frame -> (V, 3)."""
    bodies: dict[str, dict[int, np.ndarray]] = {}
    with open(path) as file:
        lines = iter(file.readlines())
    for frame in range(int(next(lines))):
        for _ in range(int(next(lines))):
            body_id = next(lines).split()[0]
            xyz = np.zeros((int(next(lines)), 3), np.float32)
            for joint in range(len(xyz)):
                xyz[joint] = np.array(next(lines).split()[:3], dtype=np.float32)
            bodies.setdefault(body_id, {})[frame] = xyz
    return bodies


def usual(path: Path) -> list[list[dict[str, Any]]]:
    """frame -> body -> field -> value, its joints under "joints"."""

    def named(names: list[str], line: str) -> dict[str, Any]:
        return {n: float(text) for n, text in zip(names, line.split(), strict=True)}

    with open(path) as file:
        frames = []
        for _ in range(int(file.readline())):
            bodies = []
            for _ in range(int(file.readline())):
                body = named(BODY_FIELDS, file.readline())
                joints = int(file.readline())
                body["joints"] = [named(JOINT_FIELDS, file.readline()) for _ in range(joints)]
                bodies.append(body)
            frames.append(bodies)
    return frames


def xyz_of(contents: Any) -> Iterator[np.ndarray]:
    """What any of the plain readers gave, body after body and frame after frame: (V, 3) each."""
    if isinstance(contents, list):
        for bodies in contents:
            for body in bodies:
                yield np.array([[joint[axis] for axis in "xyz"] for joint in body["joints"]])
    else:
        for frames in contents.values():
            yield from (f[0] if isinstance(f, tuple) else f for f in frames.values())


def check(path: Path) -> None:
    """All readers give the same coordinates (of a file with one body)."""
    expected = read_skeleton(path).xyz[0]
    for reader in (lean, joint_arrays, usual):
        got = np.array(list(xyz_of(reader(path))), np.float32)
        np.testing.assert_array_equal(got, expected, err_msg=reader.__name__)


NAMES = ("ours", "ours_2", "ours_in_python", "usual", "joint_arrays", "lean")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--files", type=positive, default=200)
    parser.add_argument("--frames", type=positive, default=100, help="of each file")


def cases(args: argparse.Namespace) -> list[Case]:
    if read.native is None:
        raise InputError("msclr is installed without its compiled reader: nothing to measure")
    return [Case({"op": "read_skeleton", "files": args.files, "frames": args.frames}, NAMES)]


def parts(case: Case, args: argparse.Namespace) -> Iterator[Part]:
    """All files for ours; the plain readers read a twentieth of them a turn."""
    with tempfile.TemporaryDirectory() as folder:
        names = clip_names(args.files, actions=49)  # one person in each
        paths = write_tree(Path(folder), names, frames=args.frames)
        check(paths[0])
        few = paths[: max(1, len(paths) // 20)]

        def each(reader: Callable[[Path], Any], paths: list[Path]) -> Callable[[], Any]:
            return lambda: deque(map(reader, paths), maxlen=0)

        runs = {
            "ours": each(read_skeleton, paths),
            "ours_2": lambda: deque(read_skeletons(paths, threads=2), maxlen=0),
            "ours_in_python": each(lambda p: plain.parse(p.read_bytes(), str(p)), few),
            "usual": each(usual, few),
            "joint_arrays": each(joint_arrays, few),
            "lean": each(lean, few),
        }
        of_all, of_few = (1e-6 * sum(p.stat().st_size for p in of) for of in (paths, few))
        yield Part(
            runs,
            amounts={n: of_all if n in ("ours", "ours_2") else of_few for n in runs},
            key="seconds_per_mb",
        )


SETUP = Setup("1 minute", file="cpu", devices=("cpu",))
