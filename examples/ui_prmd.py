"""UI-PRMD as a prepared data set: 1,979 clips of 10 rehabilitation movements, each clip seen by a
Kinect (22 joints) and by a Vicon system (39 markers).

    python examples/ui_prmd.py ui_prmd.npz --out data/ui_prmd
    msclr pretrain ui_prmd
    msclr evaluate linear runs/ui_prmd

20 classes, movement x done correctly or not; subjects 1 3 5 7 9 train, the others are for testing.
Data: Vakanski et al., "A data set of human body movements for physical rehabilitation exercises"
(Data, 2018).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from msclr.data import prepare_arrays
from msclr.data.store import FRAMES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path, help="ui_prmd.npz")
    parser.add_argument("--out", type=Path, default=Path("data/ui_prmd"))
    parser.add_argument("--frame", choices=FRAMES, default="camera")
    arguments = parser.parse_args()
    with np.load(arguments.archive) as archive:
        data = dict(archive)
    cut = data["offset"][1:-1]
    report = prepare_arrays(
        arguments.out,
        views={
            "uiprmd_kinect_22": np.split(data["kinect_22"], cut),  # (T, 22, 3) int16 millimetres
            "uiprmd_vicon_39": np.split(data["vicon_39"], cut),
        },
        labels=2 * (data["movement"] - 1) + data["correct"],
        split=np.where(data["subject"] % 2 == 1, "train", "val"),
        names=data["name"],
        classes=[f"m{m:02d} {how}" for m in range(1, 11) for how in ("incorrect", "correct")],
        scale=0.001,
        frame=arguments.frame,
        source="UI-PRMD (Vakanski et al., 2018)",
    )
    print("\n".join(report.lines()))


if __name__ == "__main__":
    main()
