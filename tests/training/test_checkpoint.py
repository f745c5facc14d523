"""Checkpoints: whole or not at all, and nothing that is no checkpoint is taken for one."""

from __future__ import annotations

import pytest
import torch

from msclr.errors import InputError
from msclr.training.checkpoint import load_checkpoint, save_checkpoint


class Weird:
    """An object of a class that `weights_only` does not allow."""


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"step": 7, "weight": torch.arange(40.0), "names": ["a", None]})
    return path


def test_a_checkpoint_comes_back_as_it_was(saved):
    state = load_checkpoint(saved)
    assert state.pop("weight").equal(torch.arange(40.0))
    assert state == {"format": 1, "step": 7, "names": ["a", None]}


def test_saving_leaves_one_file(saved):
    save_checkpoint(saved, {"step": 8})
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    assert load_checkpoint(saved)["step"] == 8


def test_a_save_that_fails_leaves_the_former_checkpoint(saved):
    before = saved.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(saved, {"step": 8, "bad": lambda: None})
    assert saved.read_bytes() == before


def test_the_file_is_on_the_disk_before_it_has_its_name(saved, monkeypatch):
    from msclr.training import checkpoint

    calls = []
    fsync, replace = checkpoint.os.fsync, checkpoint.os.replace
    monkeypatch.setattr(checkpoint.os, "fsync", lambda fd: calls.append("fsync") or fsync(fd))
    monkeypatch.setattr(
        checkpoint.os, "replace", lambda a, b: calls.append("replace") or replace(a, b)
    )
    save_checkpoint(saved, {"step": 8})
    assert calls == ["fsync", "replace"]


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no checkpoint at .*absent\.pt"):
        load_checkpoint(tmp_path / "absent.pt")


def test_a_checkpoint_cut_short_at_any_length_is_refused(saved):
    content = saved.read_bytes()
    for length in {*range(70), *range(0, len(content), 37), len(content) - 1}:
        saved.write_bytes(content[:length])
        with pytest.raises(InputError, match="truncated or damaged") as caught:
            load_checkpoint(saved)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"step 7\n", b"PK", b"\x80\x02}q\x00.", b"\0" * 3000])
def test_a_file_of_another_kind_is_refused(content, saved):
    saved.write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint\.pt"):
        load_checkpoint(saved)


@pytest.mark.parametrize("state", [[1, 2], {"step": 7}, {"format": 99}, torch.zeros(3)])
def test_a_torch_file_that_is_no_checkpoint_is_refused(state, saved):
    torch.save(state, saved)
    with pytest.raises(InputError, match="not a checkpoint of this version"):
        load_checkpoint(saved)


def test_a_checkpoint_that_would_run_code_is_refused(saved):
    torch.save({"format": 1, "weird": Weird()}, saved)
    with pytest.raises(InputError, match=r"checkpoint\.pt"):
        load_checkpoint(saved)
