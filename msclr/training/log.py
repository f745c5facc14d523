"""What a run writes down of its steps: log.csv and TensorBoard events."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import NamedTuple

COINCIDE = 0.999  # a mean cosine above it is a sign of collapse


class StepRecord(NamedTuple):
    """A row of log.csv."""

    step: int  # from 1
    epoch: int  # from 1
    loss: float
    contrast_accuracy: float  # how often the key outranked the whole queue
    lr: float
    clips_per_second: float


class KnnRecord(NamedTuple):
    """A row of knn.csv."""

    step: int  # from 1
    stream: str
    layout: str
    accuracy: float  # percent of the val clips whose nearest train clip is of their class
    mean_cosine: float  # of two val clips; 1 where the encoder has collapsed
    data: str = ""  # the data set's name, where the run is on several

    def __str__(self) -> str:
        sign = "" if self.mean_cosine <= COINCIDE else ", features nearly coincide: collapsed?"
        of = f"{self.data}, {self.stream}" if self.data else self.stream
        return f"1-NN {self.accuracy:.1f} % ({of}, {self.layout}{sign})"


class RunLog:
    """Appends to the logs and to TensorBoard; rows after ``step`` are dropped on a resume.

    ``log.csv`` has the steps, ``knn.csv`` and ``tsne/`` what was measured of the encoder.

    TensorBoard's events are written again from the rows that are kept: files of a run that was cut
    off would leave holes, or be in the wrong order.
    """

    def __init__(self, folder: Path, step: int = 0):
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self._path = folder / "log.csv"
        kept = [row for row in read_log(self._path) if row.step <= step]
        temporary = self._path.with_name(".log.csv.partial")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(StepRecord._fields)
            writer.writerows(_texts(row) for row in kept)
        temporary.replace(self._path)
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self._board = SummaryWriter(str(folder / "tensorboard"))
        self._write_events(kept)
        self._knn_path = folder / "knn.csv"
        measured = [row for row in read_knn(self._knn_path) if row.step <= step]
        self._knn_path.unlink(missing_ok=True)
        if measured:
            self.write_knn(measured)
        for path in sorted((folder / "tsne").glob("*.png")):
            if int(path.name.partition("_")[0]) <= step:
                self.write_map(path)
            else:
                path.unlink()

    def write_knn(self, records: list[KnnRecord]) -> None:
        is_new = not self._knn_path.exists()
        with self._knn_path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([KnnRecord._fields] * is_new + [list(r) for r in records])
        for row in records:
            name = "/".join(filter(None, (row.data, row.stream, row.layout)))
            self._board.add_scalar(f"knn/{name}", row.accuracy, row.step)
            self._board.add_scalar(f"mean_cosine/{name}", row.mean_cosine, row.step)
        self._board.flush()

    def write_map(self, path: Path) -> None:
        """A picture ``STEP_NAME.png`` to TensorBoard."""
        from matplotlib.image import imread

        step, _, name = path.stem.partition("_")
        self._board.add_image(f"tsne/{name}", imread(path)[..., :3], int(step), dataformats="HWC")
        self._board.flush()

    def write(self, records: list[StepRecord]) -> None:
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(_texts(row) for row in records)
        self._write_events(records)

    def _write_events(self, records: list[StepRecord]) -> None:
        for row in records:
            for name in ("loss", "contrast_accuracy", "lr", "clips_per_second"):
                self._board.add_scalar(f"pretrain/{name}", getattr(row, name), row.step)
        self._board.flush()

    def close(self) -> None:
        self._board.close()


def read_log(path: Path) -> list[StepRecord]:
    """The whole rows of a log.csv; a last line cut short is left out."""
    if not path.is_file():
        return []
    records = []
    with path.open(newline="", encoding="utf-8") as file:
        for line in file:
            fields = line.rstrip("\r\n").split(",")
            whole = line.endswith("\n") and len(fields) == len(StepRecord._fields)
            if whole and fields[0].isdigit():  # not the header
                step, epoch, *rest = fields
                records.append(StepRecord(int(step), int(epoch), *map(float, rest)))
    return records


def read_knn(path: Path) -> list[KnnRecord]:
    """The whole rows of a knn.csv, as :func:`read_log` has it."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        lines = [line.rstrip("\r\n").split(",") for line in file if line.endswith("\n")]
    return [
        KnnRecord(int(step), stream, layout, float(accuracy), float(cosine), *data)
        for step, stream, layout, accuracy, cosine, *data in lines  # no data: of older versions
        if step.isdigit()
    ]


def _texts(row: StepRecord) -> list[str]:
    # nine digits give back every bit of a float32
    return [str(row.step), str(row.epoch), *(f"{value:.9g}" for value in row[2:])]
