"""UTKinect-Action3D as a prepared data set: 199 clips of 10 actions, 20 Kinect v1 joints.

    python examples/utkinect.py UTKINECT_FOLDER --out data/utkinect
    msclr pretrain utkinect
    msclr evaluate linear runs/utkinect

The folder holds ``joints_sXX_eYY.txt`` (a frame number and 20 joints a line, metres) and
``actionLabel.txt``. Odd subjects train, even ones are for testing.
Data: Xia et al., "View invariant human action recognition using histograms of 3D joints" (2012).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from msclr.data import prepare_arrays
from msclr.data.store import FRAMES

LAYOUT = "kinectv1_20"


def read_actions(path: Path) -> list[tuple[str, str, int, int]]:
    """(recording, action, first frame, last frame) of each clip; an action without frames is
    left out."""
    actions, recording = [], ""
    for line in path.read_text().splitlines():
        name, colon, span = line.strip().partition(":")
        if not colon:
            recording = name or recording
            continue
        first, last = span.split()
        if "NaN" not in (first, last):
            actions.append((recording, name, int(first), int(last)))
    return actions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("data/utkinect"))
    parser.add_argument("--frame", choices=FRAMES, default="camera")
    arguments = parser.parse_args()
    actions = read_actions(arguments.folder / "actionLabel.txt")
    recordings = {
        name: np.loadtxt(arguments.folder / f"joints_{name}.txt")
        for name in {a[0] for a in actions}
    }
    classes = sorted({action for _, action, _, _ in actions})
    clips = []
    for recording, _, first, last in actions:
        frames = recordings[recording]
        rows = (frames[:, 0] >= first) & (frames[:, 0] <= last)
        clips.append(frames[rows, 1:].reshape(-1, 20, 3))  # (T, 20, 3)
    report = prepare_arrays(
        arguments.out,
        views={LAYOUT: clips},
        labels=[classes.index(action) for _, action, _, _ in actions],
        split=["train" if int(r[1:3]) % 2 else "val" for r, _, _, _ in actions],
        names=[f"{recording}_{action}" for recording, action, _, _ in actions],
        classes=classes,
        frame=arguments.frame,
        source="UTKinect-Action3D (Xia et al., 2012)",
    )
    print("\n".join(report.lines()))


if __name__ == "__main__":
    main()
