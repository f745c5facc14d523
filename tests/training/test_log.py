"""log.csv and the TensorBoard events of a run."""

from __future__ import annotations

import math
import shutil
import struct
import time

import pytest

from msclr.training.log import RunLog, StepRecord, read_log

HEADER = "step,epoch,loss,contrast_accuracy,lr,clips_per_second"


def record(step, loss=0.5):
    return StepRecord(step, 1 + step // 4, loss, 0.25, 1e-3, 812.5)


def losses(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard")).Reload().Scalars("pretrain/loss")
    return [(event.step, event.value) for event in events]


def written(folder, *records, step=0):
    log = RunLog(folder, step)
    log.write(list(records))
    log.close()
    return folder / "log.csv"


def test_the_log_is_a_table_with_a_header(tmp_path):
    lines = written(tmp_path, record(1), record(2)).read_text().splitlines()
    assert lines == [HEADER, "1,1,0.5,0.25,0.001,812.5", "2,1,0.5,0.25,0.001,812.5"]


def test_rows_come_back_as_records(tmp_path):
    rows = [record(1), record(2, math.inf)]
    assert read_log(written(tmp_path, *rows)) == rows


def test_every_float32_comes_back_bit_for_bit(tmp_path):
    bits = [0x00000001, 0x3F800001, 0x3DCCCCCD, 0x40A8F5C3, 0x7F7FFFFF]
    values = [struct.unpack("f", struct.pack("I", word))[0] for word in bits]
    path = written(tmp_path, *(record(i + 1, x) for i, x in enumerate(values)))
    assert [struct.pack("f", row.loss) for row in read_log(path)] == [
        struct.pack("f", x) for x in values
    ]


@pytest.mark.parametrize("cut", [1, 2, 5, 20])
def test_a_last_line_cut_short_is_not_read(cut, tmp_path):
    path = written(tmp_path, record(1), record(2))
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_log(path) == [record(1)]


def test_no_log_has_no_rows(tmp_path):
    assert read_log(tmp_path / "log.csv") == []


def test_a_resume_drops_the_rows_past_its_step(tmp_path):
    written(tmp_path, *(record(i, 0.5) for i in range(1, 6)))
    path = written(tmp_path, *(record(i, 0.25) for i in (4, 5, 6)), step=3)
    rows = [(row.step, row.loss) for row in read_log(path)]
    assert rows == [(1, 0.5), (2, 0.5), (3, 0.5), (4, 0.25), (5, 0.25), (6, 0.25)]
    assert losses(tmp_path) == rows


def test_tensorboard_gets_every_figure(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    written(tmp_path, record(3))
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {tag: board.Scalars(tag)[0].value for tag in board.Tags()["scalars"]} == {
        "pretrain/loss": 0.5,
        "pretrain/contrast_accuracy": 0.25,
        "pretrain/lr": pytest.approx(1e-3),
        "pretrain/clips_per_second": 812.5,
    }


def test_tensorboard_has_what_log_csv_has_at_any_moment(tmp_path, monkeypatch):
    """A killed run closes nothing; its curve must have no hole where the log has none."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    write = RecordWriter.write

    def slowly(writer, data):
        time.sleep(0.01)
        write(writer, data)

    monkeypatch.setattr(RecordWriter, "write", slowly)
    log = RunLog(tmp_path)
    log.write([record(1), record(2)])
    shutil.copytree(tmp_path / "tensorboard", tmp_path / "then" / "tensorboard")
    log.close()
    assert losses(tmp_path / "then") == [(1, 0.5), (2, 0.5)]
