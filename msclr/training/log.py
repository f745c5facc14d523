"""What a run writes down of its steps: log.csv and TensorBoard events."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import NamedTuple


class StepRecord(NamedTuple):
    """A row of log.csv."""

    step: int  # from 1
    epoch: int  # from 1
    loss: float
    contrast_accuracy: float  # how often the key outranked the whole queue
    lr: float
    clips_per_second: float


class RunLog:
    """Appends to ``log.csv`` and to TensorBoard; rows after ``step`` are dropped on a resume.

    TensorBoard's events are written anew from the rows that are kept: files of a run that was cut
    off would leave holes, or stand in the wrong order.
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


def _texts(row: StepRecord) -> list[str]:
    # nine digits give back every bit of a float32
    return [str(row.step), str(row.epoch), *(f"{value:.9g}" for value in row[2:])]
