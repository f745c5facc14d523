"""A split held as tensors: every clip in its place, layouts by any of their names."""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
import threading

import numpy as np
import pytest
import torch

from msclr import layouts
from msclr.data import SkeletonDataset, open_store
from msclr.data.host_clips import HostClips
from msclr.data.store import StoreWriter
from msclr.data.streams import to_stream
from msclr.errors import InputError

FRAMES, BODIES = 5, 2
LAYOUTS = ["kinectv2_25", "h36m_17"]
SPLIT = ["train", "val", "train", "train", "val", "train"]


def clip(i: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(i)
    made = {}
    for name in LAYOUTS:
        shape = (BODIES, FRAMES, layouts.get(name).num_joints, 3)
        made[name] = rng.normal(size=shape).astype(np.float32)
        if i % 2:
            made[name][1] = 0
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six clips, four of them for training; the clips of odd number have one body."""
    out = tmp_path_factory.mktemp("dataset") / "set"
    described = {"name": "six", "layouts": [layouts.get(n) for n in LAYOUTS], "source": "a test"}
    with StoreWriter(
        out, **described, classes=["sit", "stand", "go"], frames=FRAMES, bodies=BODIES
    ) as writer:
        for i, split in enumerate(SPLIT):
            writer.add(split, clip(i), np.array([True, i % 2 == 0]), i % 3, f"clip {i}")
        writer.finish()
    return out


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_clip_of_a_split_is_there_in_order(folder, split):
    dataset = SkeletonDataset(folder, split)
    numbers = [i for i, s in enumerate(SPLIT) if s == split]
    assert len(dataset) == len(numbers)
    assert dataset.names == [f"clip {i}" for i in numbers]
    assert dataset.classes == ["sit", "stand", "go"]
    assert dataset.labels.tolist() == [i % 3 for i in numbers]
    assert dataset.bodies.tolist() == [[True, i % 2 == 0] for i in numbers]
    assert dataset.device == torch.device("cpu")
    assert list(dataset.views) == list(dataset.layouts) == LAYOUTS
    for name in LAYOUTS:
        assert dataset.views[name].dtype == torch.float32
        wanted = np.stack([clip(i)[name] for i in numbers])
        np.testing.assert_array_equal(dataset.views[name].numpy(), wanted)


def test_clips_are_gathered_in_the_order_asked_for(folder):
    dataset = SkeletonDataset(folder, "train")
    found = dataset.clips("h36m_17", torch.tensor([3, 0, 3]))
    wanted = np.stack([clip(i)["h36m_17"] for i in (5, 0, 5)])
    np.testing.assert_array_equal(found.numpy(), wanted)


def test_gathered_clips_are_copies(folder):
    dataset = SkeletonDataset(folder, "train")
    dataset.clips("h36m_17", torch.tensor([0, 1])).zero_()
    np.testing.assert_array_equal(dataset.views["h36m_17"][0].numpy(), clip(0)["h36m_17"])


@pytest.mark.parametrize("stream", ["joint", "motion", "bone"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_inputs_have_the_axes_of_an_encoder(folder, name, stream):
    dataset = SkeletonDataset(folder, "train")
    x = dataset.clips(name, torch.tensor([2, 1]))
    found = dataset.inputs(x, name, stream)
    assert found.shape == (2, 3, FRAMES, layouts.get(name).num_joints, BODIES)
    y = to_stream(x, stream, layouts.get(name))
    for c in range(3):
        for m in range(BODIES):
            assert torch.equal(found[:, c, :, :, m], y[:, m, :, :, c])


def test_an_open_store_serves_as_the_folder_does(folder):
    store = open_store(folder)
    dataset = SkeletonDataset(store, "val")
    assert dataset.store is store
    assert dataset.names == ["clip 1", "clip 4"]


@pytest.mark.parametrize("asked", ["kinectv2_25", "KinectV2_25", "ntu-rgb+d"])
def test_a_layout_is_found_by_any_of_its_names(folder, asked):
    dataset = SkeletonDataset(folder, "train", [asked])
    assert list(dataset.views) == list(dataset.layouts) == ["kinectv2_25"]
    assert dataset.layouts["kinectv2_25"] == layouts.get("kinectv2_25")


def test_layouts_come_in_the_order_asked_for(folder):
    for asked in (LAYOUTS, LAYOUTS[::-1]):
        assert list(SkeletonDataset(folder, "val", asked).views) == asked


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["smplx_42"], "no layout 'smplx_42'; it has kinectv2_25, h36m_17"),
        (["h36m_71"], "unknown layout 'h36m_71'; did you mean 'h36m_17'"),
    ],
    ids=["not in the data", "known nowhere"],
)
def test_a_layout_that_is_not_there_is_refused_in_one_line(folder, asked, message):
    with pytest.raises(InputError) as error:
        SkeletonDataset(folder, "train", asked)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_split_is_refused(folder):
    with pytest.raises(InputError, match="split 'test' is not known; choose one of train, val"):
        SkeletonDataset(folder, "test")


# Storage, and clips that stay in the memory map


@pytest.mark.parametrize("resident", [True, False])
def test_half_precision_storage_rounds_the_clips(folder, resident):
    dataset = SkeletonDataset(folder, "train", storage="float16", resident=resident)
    index = torch.tensor([3, 0])
    held = dataset.hold({"h36m_17": index})["h36m_17"]
    assert held.clips.dtype == torch.float16
    found = dataset.clips("h36m_17", index)
    wanted = np.stack([clip(i)["h36m_17"] for i in (5, 0)])
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), wanted.astype(np.float16).astype(np.float32))


def test_another_storage_is_refused(folder):
    with pytest.raises(InputError, match="storage must be one of float32, float16, got 'bfloat16'"):
        SkeletonDataset(folder, "train", storage="bfloat16")


@pytest.mark.parametrize("view", ["none", "extreme"])
@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_a_streamed_data_set_gives_what_a_resident_one_gives(folder, storage, view):
    both = [
        SkeletonDataset(folder, "train", storage=storage, resident=here) for here in (True, False)
    ]
    assert [dataset.resident for dataset in both] == [True, False]
    assert not both[1].views
    index = torch.tensor([3, 0, 3, 1])
    for name in LAYOUTS:
        clips = [dataset.clips(name, index) for dataset in both]
        assert torch.equal(*clips)
        views = [
            dataset.view(
                name, dataset.hold({name: index})[name], index, index * 0, seed=1, purpose=0,
                view=view, stream="bone",
            )
            for dataset in both
        ]  # fmt: skip
        assert torch.equal(*views)
        if view == "none" and storage == "float32":
            assert torch.equal(views[0], both[0].inputs(clips[0], name, "bone"))


def test_prefetched_clips_are_those_asked_for(folder):
    dataset = SkeletonDataset(folder, "train", resident=False)
    first = {"h36m_17": torch.tensor([1, 2]), "kinectv2_25": torch.tensor([0])}
    second = {"h36m_17": torch.tensor([3]), "kinectv2_25": torch.tensor([2, 2, 1])}
    for ahead, asked in [(first, first), (second, first), (second, second), (None, second)]:
        if ahead is not None:
            dataset.prefetch(ahead)
        held = dataset.hold(asked)
        assert list(held) == list(asked)
        for name, index in asked.items():
            wanted = SkeletonDataset(folder, "train").clips(name, index)
            assert torch.equal(held[name].clips[held[name].index], wanted)


def test_the_clips_asked_for_are_gathered_in_the_background(folder, monkeypatch):
    dataset, done = SkeletonDataset(folder, "train", resident=False), threading.Event()
    take = np.take

    def waiting(*arguments, **options):
        assert done.wait(10)
        return take(*arguments, **options)

    monkeypatch.setattr(np, "take", waiting)
    dataset.prefetch({"h36m_17": torch.tensor([1])})  # returns though nothing is gathered yet
    done.set()
    found = dataset.hold({"h36m_17": torch.tensor([1])})["h36m_17"].clips
    np.testing.assert_array_equal(found[0].numpy(), clip(2)["h36m_17"])


def test_an_error_of_the_background_reaches_the_one_who_asks(folder):
    dataset = SkeletonDataset(folder, "train", resident=False)
    dataset.prefetch({"h36m_17": torch.tensor([4])})
    with pytest.raises(IndexError, match=r"clips must be 0\.\.3, got 4\.\.4"):
        dataset.hold({"h36m_17": torch.tensor([4])})


class CopyEvent:
    """In place of torch.cuda.Event: counts the copies that were waited for."""

    waited = 0

    def record(self):
        pass

    def synchronize(self):
        CopyEvent.waited += 1


def test_pinned_memory_takes_turns_and_is_reused_when_its_copy_is_through(folder, monkeypatch):
    """As on a GPU, but for the copies themselves: what is handed out here is the pinned memory."""
    plain = torch.empty
    dropped = lambda *a, pin_memory=False, **options: plain(*a, **options)  # noqa: E731
    monkeypatch.setattr(torch, "empty", dropped)
    monkeypatch.setattr(torch.cuda, "Event", CopyEvent)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(CopyEvent, "waited", 0)
    dataset = SkeletonDataset(folder, "train", resident=False)
    for part in dataset._host._parts:
        part._pinned = True
    memory = []
    for step, (index, waited) in enumerate([([0, 1], 0), ([2], 0), ([3, 0], 1), ([1, 2, 3], 2)]):
        wanted = {"h36m_17": torch.tensor(index)}
        dataset.prefetch(wanted)
        x = dataset.hold(wanted)["h36m_17"].clips
        assert CopyEvent.waited == waited
        for row, i in zip(x, index, strict=True):
            np.testing.assert_array_equal(row.numpy(), clip([0, 2, 3, 5][i])["h36m_17"])
        memory.append(x.data_ptr())
        assert step == 0 or memory[-1] != memory[-2]  # while that is copied
    assert memory[2] == memory[0]


def test_clips_live_on_the_device_where_half_of_its_free_memory_holds_them(folder, monkeypatch):
    size = 4 * BODIES * FRAMES * sum(layouts.get(n).num_joints for n in LAYOUTS) * 3  # numbers
    for free, storage, resident in [
        (8 * size, "float32", True),
        (8 * size - 1, "float32", False),
        (4 * size, "float16", True),
        (4 * size - 1, "float16", False),
    ]:
        monkeypatch.setattr("msclr.data.dataset._free_bytes", lambda _, free=free: free)
        assert SkeletonDataset(folder, "train", storage=storage).resident is resident
    assert SkeletonDataset(folder, "train", resident=True).resident


def test_planar_data_keep_their_score(folder):
    store = open_store(folder)
    store = dataclasses.replace(store, meta=store.meta | {"coordinates": "xy_score"})
    dataset, plain = SkeletonDataset(store, "train"), SkeletonDataset(folder, "train")
    assert dataset.planar and not plain.planar
    index = torch.arange(4)
    x = dataset.clips("h36m_17", index)
    held = dataset.hold({"h36m_17": index})["h36m_17"]
    made = dataset.view("h36m_17", held, index, index, seed=0, purpose=0, stream="motion")
    for found in (dataset.inputs(x, "h36m_17", "motion"), made):
        assert torch.equal(found[:, 2], x.permute(0, 4, 2, 3, 1)[:, 2])
        assert not torch.equal(found[:, 1], x.permute(0, 4, 2, 3, 1)[:, 1])


class Clips(torch.utils.data.Dataset):
    """Clips one by one, as a loader of someone's own asks for them."""

    def __init__(self, dataset: SkeletonDataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.dataset.clips("h36m_17", torch.tensor([i]))[0]


@pytest.mark.parametrize("before", ["clips", "prefetch"])
def test_a_forked_worker_reads_streamed_clips(folder, before):
    """What the parent had read or begun to read needs a thread that the worker does not have."""
    dataset = SkeletonDataset(folder, "train", resident=False)
    dataset.prefetch({"h36m_17": torch.tensor([0])})
    if before == "clips":
        dataset.clips("h36m_17", torch.tensor([0]))
    loader = torch.utils.data.DataLoader(
        Clips(dataset), batch_size=2, num_workers=1, multiprocessing_context="fork", timeout=10
    )
    found = torch.cat(list(loader))
    np.testing.assert_array_equal(found.numpy(), dataset.store.split("train").views["h36m_17"])


def test_a_pickled_dataset_opens_its_files_again(folder, tmp_path, monkeypatch):
    """As a spawned worker gets it: without threads, and without the clips."""
    monkeypatch.chdir(folder.parent)
    dataset = SkeletonDataset(folder.name, "train", resident=False)
    dataset.prefetch({"h36m_17": torch.tensor([0])})
    pickled = pickle.dumps(dataset)
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(pickled)
    index = torch.tensor([3, 1])
    again.prefetch({"h36m_17": index})
    assert torch.equal(again.clips("h36m_17", index), dataset.clips("h36m_17", index))
    assert torch.equal(again.clips("kinectv2_25", index), dataset.clips("kinectv2_25", index))
    assert not again.resident
    assert len(pickle.dumps(dataset._host)) < 1000 < dataset._host.maps["h36m_17"].nbytes


def test_a_part_of_a_file_is_pickled_as_it_is(folder):
    whole = open_store(folder).split("train").views["h36m_17"]
    part = HostClips({"h36m_17": whole[2:]}, torch.float32, torch.device("cpu"))
    wanted = {"h36m_17": torch.tensor([0])}
    found = pickle.loads(pickle.dumps(part)).take(wanted)["h36m_17"]
    np.testing.assert_array_equal(found.numpy(), whole[2:3])
