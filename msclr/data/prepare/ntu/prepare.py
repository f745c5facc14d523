"""`prepare_ntu`: from the skeleton files of NTU RGB+D to a prepared data set."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from msclr import layouts as layout_registry
from msclr.data.derive import derivations
from msclr.data.prepare._left_out import MOST_LEFT_OUT
from msclr.data.prepare._place import Placement, choose_placement
from msclr.data.prepare._want import want_count
from msclr.data.prepare.clean import Rules
from msclr.data.prepare.ntu.bodies import BodyRules
from msclr.data.prepare.ntu.convert import Settings
from msclr.data.prepare.ntu.job import Job
from msclr.data.prepare.ntu.names import (
    belongs,
    check_protocol,
    class_names,
    parse_name,
    skip_list,
    split_of,
)
from msclr.data.prepare.ntu.processes import convert_ranges
from msclr.data.prepare.ntu.ranges import RangeReport
from msclr.data.prepare.ntu.report import NtuReport, absent_groups, faults
from msclr.data.prepare.ntu.sources import ClipFile, find_clips
from msclr.data.store import SPLITS, require_free
from msclr.data.store_arrays import Description
from msclr.errors import InputError
from msclr.layouts.layout import Layout
from msclr.paths import as_path

KINECT = "kinectv2_25"


def prepare_ntu(
    dataset: Literal["ntu60", "ntu120"],
    skeletons: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    protocol: Literal["xsub", "xview", "xset"],
    poses: Mapping[str | Layout, Any] | None = None,
    absent_poses: Literal["drop", "keep"] = "drop",
    derive: Sequence[str | Layout] = (),
    frame: str = "ntu",
    size: str | None = None,
    frames: int = 50,
    bodies: int = 2,
    rules: BodyRules = BodyRules(),  # noqa: B008 - frozen
    name: str | None = None,
    workers: int | None = None,
    on_clip: Callable[[int, int], None] | None = None,
) -> NtuReport:
    """Prepare NTU RGB+D from its `.skeleton` files, and write it to the folder `out`.

    skeletons: a folder, searched with its subfolders, a .zip, read without unpacking it to disk, or
        several of them. Clips are the files named SsssCcccPpppRrrrAaaa.skeleton; what the order of
        the files is changes nothing. Those on the data set's skip list, and for ntu60 those past
        setup 17 or action 60, are left out.
    protocol: which clips train. ntu60: xsub, xview; ntu120: xsub, xset (`names.split_of`).
    poses: further conventions of the same clips, layout -> a folder of pose files in millimetres,
        a `PoseFolder`, or any object with `layout` and `read(clip name)` -> (P, T', V, 3) metres,
        NaN where a person or a joint is absent, or None. A clip's people are found among them by
        where they are (`match_people`).
    absent_poses: what becomes of clips, and of bodies, that the poses of some layout lack: "drop"
        them from all layouts, or "keep" them, 0 under that layout.
    derive: layouts to be computed from the Kinect's joints (`msclr.layouts.derive`).
    frame, size: see `prepare_arrays`; the main body is the one that moves most. The frame of
        published figures, and the default, is "ntu": steps 3 and 4 below.
    frames: T of the prepared clips. bodies: M, how many are kept at most.
    rules: how ids of one person are joined and ghosts are found (`BodyRules`).
    name: of the data set, the folder's if not given.
    workers: processes, as many as there are cores for this one if not given.
    on_clip: called with the clips done and all clips, after each few dozen.

    The steps for each clip, in float64:
    1. Its people: one person's ids are joined, ghosts dropped, the `bodies` that move most kept,
       the most moving first (`choose_bodies`). A joint that is NaN, infinite or 0 is missing.
    2. For each layout: frames at either end without any of them are cut off; missing joints, and
       bodies where they are out of sight, are interpolated linearly over time, and held before the
       first and after the last sight; linear resampling over time to `frames`, both ends kept.
    3. The layout's centre joint is subtracted per frame and body (Kinect: spineshoulder).
    4. All bodies and frames are turned about y by one angle: the one that lays the line from the
       main body's left to its right shoulder along x, in the first frame that shows both. Each
       layout by its own shoulders (lsho, rsho), or not at all where it has none.
    The usual scripts for NTU instead drop every frame without a body and put zeros where one body
    is out of sight; here time keeps its pace and no joint jumps.

    A run that is cut off leaves `.<out>.prepare` next to `out`; the same call goes on from there.
    Memory does not grow with the number of clips beyond their names.

    Returns the counts of what was found. Raises InputError for whatever does not fit together, and
    where more than 5 % of the clips are corrupt; fewer are left out and listed in the report.
    """
    out = as_path(out)
    require_free(out)
    check_protocol(dataset, protocol)
    placement = (frame, size)
    settings = _settings(frames, bodies, rules, poses or {}, absent_poses, derive, placement)
    workers = _cores() if workers is None else want_count(workers, "workers")
    report = NtuReport(
        out=str(out),
        frames=settings.clean.frames,
        bodies=settings.bodies,
        classes=class_names(dataset),
        dataset=dataset,
        protocol=protocol,
        derived=list(settings.derived),
        frame=settings.clean.placement.frame,
        size_by=settings.clean.placement.size,
        unpaired=[name for name, layout in settings.layouts.items() if not layout.mirror_pairs],
    )
    clips = [
        (clip, split_of(parse_name(clip.name), dataset, protocol))
        for clip in _select(find_clips(skeletons), report)
    ]
    if not any(split == "train" for _, split in clips):
        raise InputError(
            f"none of the {len(clips):,} clips found trains in {dataset} {protocol}; "
            "give the whole data set's folders, or another protocol"
        )
    path = out.resolve()
    description = Description(
        name=name or path.name,
        layouts=settings.layouts,
        classes=report.classes,
        frames=report.frames,
        bodies=report.bodies,
        source=f"{dataset} {protocol}",
        frame=report.frame,
        size_by=report.size_by,
        derived_from=dict.fromkeys(settings.derived, KINECT),
    )
    job = Job(path, clips, settings, description)
    try:
        done = _convert(job, settings, len(clips), workers, on_clip)
        _collect(job, done, report)
        job.arrays.describe(report.to_dict(), report.clips)
        job.finish()
    except (InputError, MemoryError):
        job.discard()
        raise
    return report


def _cores() -> int:
    """For this process, where the system tells; else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _settings(frames, bodies, rules, poses, absent_poses, derive, placement) -> Settings:
    if absent_poses not in ("drop", "keep"):
        raise InputError(f"absent_poses is {absent_poses!r}; choose 'drop' or 'keep'")
    kinect = layout_registry.get(KINECT)
    sources = {}
    for key, source in poses.items():
        layout = key if isinstance(key, Layout) else layout_registry.get(key)
        if isinstance(source, str | os.PathLike):
            from msclr.data.prepare.poses import PoseFolder

            source = PoseFolder(source, layout)
        if source.layout != layout:
            raise InputError(f"poses for {layout.name} are of layout {source.layout.name}")
        sources[layout.name] = source
    placed = choose_placement(*placement, "xyz", [kinect])[0]
    placed = replace(placed, published=placed == Placement("ntu"))
    derived = derivations(derive, {kinect.name: kinect})
    names = [kinect.name, *sources, *derived]
    if len(set(names)) < 1 + len(poses) + len(derive):
        raise InputError(f"a layout is asked for twice, in {', '.join(names)}; give each once")
    return Settings(
        kinect=kinect,
        bodies=want_count(bodies, "bodies"),
        people=rules,
        clean=Rules(want_count(frames, "frames"), placed, einsum=True),
        poses=sources,
        keep_absent=absent_poses == "keep",
        derived=derived,
    )


def _select(found: list[ClipFile], report: NtuReport) -> list[ClipFile]:
    """The clips of the data set that are not on its skip list."""
    skipped = skip_list(report.dataset)
    belonging = [clip for clip in found if belongs(parse_name(clip.name), report.dataset)]
    clips = [clip for clip in belonging if clip.name not in skipped]
    report.found = len(found)
    report.other = len(found) - len(belonging)
    report.listed = len(belonging) - len(clips)
    if not clips:
        raise InputError(
            f"none of the {len(found):,} clips found is one of {report.dataset}'s; "
            f"{report.listed:,} are on its skip list, {report.other:,} of other actions or setups"
        )
    return clips


def _convert(job: Job, settings: Settings, clips: int, workers: int, on_clip) -> list[RangeReport]:
    """Convert what is not done yet; the reports in order. Stops where too much is corrupt."""

    def finished(report: RangeReport) -> None:
        nonlocal done
        done += report.clips
        reports[report.number] = report
        corrupt.extend(report.corrupt)
        if len(corrupt) > MOST_LEFT_OUT * clips:
            shown = "; ".join(faults(sorted(corrupt)[:3]))
            raise InputError(
                f"{len(corrupt):,} of {clips:,} clips are corrupt, more than "
                f"{MOST_LEFT_OUT:.0%}: {shown}; get the files again"
            )
        if on_clip is not None:
            on_clip(done, clips)

    def keep(report: RangeReport) -> None:
        job.add(report)
        finished(report)

    done, corrupt = 0, []
    reports: dict[int, RangeReport] = {}
    for report in job.open():
        finished(report)
    left = [each for number, each in job.ranges.items() if number not in reports]
    convert_ranges(left, settings, job.arrays, workers, keep)
    return [reports[number] for number in job.ranges]


def _collect(job: Job, done: list[RangeReport], report: NtuReport) -> None:
    """Leave the clips that are there in the store's rows, and put the counts into the report."""
    total = RangeReport()
    for part in done:
        total.add(part)
    if not total.names:
        raise InputError(f"none of the {total.clips:,} clips shows a body; nothing is written")
    people = dict(zip(total.names, total.people, strict=True))
    labels: dict[str, list[int]] = {}
    for split in SPLITS:
        placed = (clip for each in job.ranges.values() for clip in each.clips)
        rows = {c.file.name: c.row for c in placed if c.split == split and c.file.name in people}
        bodies = np.array([people[name] for name in rows], int)[:, None]
        labels[split] = [parse_name(name).action - 1 for name in rows]
        present = np.arange(report.bodies) < bodies  # (N, M)
        job.arrays.keep(split, list(rows.values()), present, labels[split], list(rows))
    _count(total, labels, report)


def _count(total: RangeReport, labels: Mapping[str, list[int]], report: NtuReport) -> None:
    """Put what was counted, and the labels of each split, into the report."""
    classes = len(report.classes)
    report.clips = {split: len(rows) for split, rows in labels.items()}
    report.per_class = {
        split: np.bincount(np.array(rows, int), minlength=classes).tolist()
        for split, rows in labels.items()
    }
    report.people = [total.people.count(n) for n in range(1, report.bodies + 1)]
    report.corrupt = total.corrupt
    report.empty = total.dropped.get("empty", [])
    report.no_poses = {layout: n for layout, n in total.dropped.items() if layout != "empty"}
    report.absent_views = total.absent_views
    report.absent_groups = absent_groups(total.names, report.dataset)
    report.body_counts, report.surplus_bodies = total.bodies, total.bodies.surplus
    report.unmatched_bodies = total.unmatched
    report.views = {layout: counts.report() for layout, counts in total.views.items()}
    report.unframed_clips = {layout: counts.unframed for layout, counts in total.views.items()}
    report.unturned = {layout: counts.unturned for layout, counts in total.views.items()}
