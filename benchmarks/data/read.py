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
import torch

from benchmarks.machine import describe, side_by_side
from benchmarks.output import save
from msclr.data.skeleton import plain, read, read_skeleton, read_skeletons
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


def measure(folder: Path, files: int, frames: int, rounds: int) -> dict[str, Any]:
    """MB/s of every reader; the plain ones read a twentieth of the files a turn."""
    if read.native is None:
        raise SystemExit("msclr is installed without its compiled reader: nothing to measure")
    names = clip_names(files, actions=49)  # one person in each
    paths = write_tree(folder, names, frames=frames)
    check(paths[0])
    few = paths[: max(1, files // 20)]

    def each(reader: Callable[[Path], Any], paths: list[Path]) -> Callable[[], Any]:
        return lambda: deque(map(reader, paths), maxlen=0)

    runs: dict[str, tuple[list[Path], Callable[[], Any]]] = {
        "ours": (paths, each(read_skeleton, paths)),
        "ours_2": (paths, lambda: deque(read_skeletons(paths, threads=2), maxlen=0)),
        "ours_in_python": (few, each(lambda p: plain.parse(p.read_bytes(), str(p)), few)),
        "usual": (few, each(usual, few)),
        "joint_arrays": (few, each(joint_arrays, few)),
        "lean": (few, each(lean, few)),
    }
    times = side_by_side({n: run for n, (_, run) in runs.items()}, torch.device("cpu"), rounds)
    megabytes = {n: 1e-6 * sum(p.stat().st_size for p in of) for n, (of, _) in runs.items()}
    mb_s = {name: megabytes[name] / times[name]["median"] for name in runs}
    return {
        "seconds": times,
        "megabytes": megabytes,
        "mb_s": mb_s,
        "ratio": {n: mb_s["ours"] / mb_s[n] for n in ("usual", "joint_arrays", "lean")},
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks data read", description=__doc__)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--frames", type=int, default=100, help="of each file")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--out", type=Path, help="file to write (default: one in results/)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), args.files, args.frames, args.rounds)
    row = {"op": "read_skeleton", "files": args.files, "frames": args.frames, **measured}
    result = {"benchmark": "data_read", **describe(torch.device("cpu")), "rows": [row]}
    if not args.json:
        for name, rate in row["mb_s"].items():
            print(f"{name:15} {rate:7.0f} MB/s")
        print(", ".join(f"{ratio:.1f}x of {name}" for name, ratio in row["ratio"].items()))
    return save(result, "data_read-cpu", args)


if __name__ == "__main__":
    main()
