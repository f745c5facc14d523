"""Prepare any clips given as arrays: the general way into the library."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from msclr.data.derive import Derivation, derivations, derive_clips
from msclr.data.prepare._detect import looks_like_score
from msclr.data.prepare._inputs import (
    Table,
    check_table,
    check_views,
)
from msclr.data.prepare._left_out import Unusable, by_reason, check_strict, check_unusable
from msclr.data.prepare._place import choose_placement
from msclr.data.prepare._raw import RawClips
from msclr.data.prepare._want import want_count, want_one_of
from msclr.data.prepare.clean import Cleaned, Rules
from msclr.data.prepare.report import PrepareReport
from msclr.data.store import COORDINATES, SPLITS, StoreWriter, require_free
from msclr.errors import InputError
from msclr.layouts.layout import Layout
from msclr.paths import as_path


def prepare_arrays(
    out: str | os.PathLike[str],
    views: Mapping[str | Layout, Sequence[np.ndarray]],
    labels: Sequence[int] | np.ndarray,
    split: Sequence[str] | np.ndarray,
    *,
    names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    frames: int = 50,
    scale: float = 1.0,
    bodies: int | None = None,
    name: str | None = None,
    source: str = "arrays",
    coordinates: str | None = None,
    zeros: str = "joint",
    frame: str | None = None,
    size: str | None = None,
    derive: Sequence[str | Layout] = (),
    strict: bool = False,
    left_out: Mapping[str, Sequence[str]] | None = None,
    notes: Sequence[str] = (),
) -> PrepareReport:
    """Clean, centre and resample clips and write them as a prepared data set to the folder `out`.

    views: for each layout (its name, or a `Layout`) the N clips, each (T, V, 3) or, with M
        bodies, (M, T, V, 3), of any real or integer dtype. The views of a clip may differ in T
        (each is resampled by itself), not in M: body m is one person in all of them.
    labels: N integers from 0 on. split: N times "train" or "val".
    names: N different names; `clip0`, `clip1`, … if not given. classes: the name of each label, no
        two alike.
    frames: T of the prepared clips. scale: metres per unit of the arrays.
    bodies: M of the prepared clips; as many as the fullest clip has if not given. Of a clip with
        more bodies the ones with the largest motion are kept (the sum over joints, axes and views
        of the variance over time), in their order.
    name: of the data set, the folder's if not given. source: where the clips are from, in words.
    coordinates: "xyz", or "xy_score" for clips of two dimensions: x and y from the middle of the
        image in halves of its width and height, and a score from 0 on (`scale` leaves it alone).
        None is "xyz", with a note in the report where the third coordinate looks like a score.
    zeros: which zeros are missing: "joint", a joint at (0, 0, 0); or "body", a frame in which all
        of a body's joints are there, for clips that were centred on some joint.
    frame: what the coordinates are relative to, all conventions of a clip by the same rule.
        "body": one rotation and one origin per clip, those of its main body (the one that moves
            most): x to its left, y up from the hips to the base of the neck, z forward, 0 at the
            middle of the hips; medians over the first 20 frames (`body_frame`). Motion through
            space and turns stay, and so do the places of bodies to one another.
        "camera": the axes of the clips; the layout's centre joint is subtracted per frame and body.
        "ntu": as "camera", then turned about y, so that the main body's shoulders lie along x in
            the first frame that shows both.
        "none": nothing is turned or subtracted.
        None is "body" where the landmarks of each layout tell it, else "camera"; the report says
        so. Clips of two dimensions are in the "camera" frame.
    size: "torso" divides each clip by the length of its main body's torso, from the middle of the
        hips to the base of the neck; "none" leaves metres. None is "torso" of the frame "body".
    derive: layouts to be computed from the first of the views whose landmarks allow it. They share
        its frame; of a centred one their own centre joint is subtracted.
    strict: refuse the clips where any would be left out.
    left_out, notes: for the report, the clips that the caller dropped, reason -> names, and what
        else it has to say, a line each.

    A clip that cannot be used is left out, of all views, and named in the report: it has no frame,
    every joint of every frame is missing in one of its views, or no body is in all of its views.
    That may happen to 5 % of the clips, or to one where there are fewer than 20, and not to all
    clips of a split.

    The steps, in float64, for each clip, body and view:
    1. Coordinates times `scale`. A joint with a NaN, an infinity or all three coordinates 0 is
       missing. A body without any joint is absent; one that only some views have is dropped from
       all of them. Present bodies move up to the first places, the rest is 0.
    2. Frames at either end of a view in which no kept body is seen are cut off.
    3. Missing joints are interpolated linearly over time; before its first and after its last
       sight a joint is held.
    4. Linear resampling over time to `frames`, both ends kept.
    5. The clip is put into its frame, by the view's own landmarks. Joints never seen in the clip
       come out as 0. Where a centre joint that is to be subtracted is one of them, the mean of the
       seen joints replaces it. A view whose centre joint is 0 in every frame of every clip is
       taken as centred already. If the body shows no frame, the clip keeps its axes, its
       origin is the centre joint and its scale 1 m; the report names such clips.

    Of "xy_score" a joint without a positive score is missing; its x and y are filled in, its score
    is 0. Step 5 is left out, since where in the image a body is says something of it, and motion is
    that of x and y.

    Returns the counts of what was found. Raises InputError, before anything is written, for
    whatever does not fit together.
    """
    out = as_path(out)
    require_free(out)
    table = check_table(labels, split, names, classes)
    chosen = want_one_of(coordinates or "xyz", "coordinates", tuple(COORDINATES))
    want_one_of(zeros, "zeros", ("joint", "body"))
    sources = check_views(views, table, chosen, zeros)
    placement, frame_why = choose_placement(frame, size, chosen, [view.layout for view in sources])
    derived = derivations(derive, {view.name: view.layout for view in sources})
    frames = want_count(frames, "frames")
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(f"scale is {scale!r}; give metres per unit, 0.001 for millimetres")
    present, unusable, unmatched = _find_bodies(sources, table)
    left_out = {why: list(dropped) for why, dropped in (left_out or {}).items()}
    left_out |= by_reason(unusable, table)
    if strict:
        check_strict(left_out)
    check_unusable(unusable, table)
    fullest = max(len(rows) for rows in present.values())
    bodies = fullest if bodies is None else want_count(bodies, "bodies")

    kept = table.keep(list(present))
    layouts = [view.layout for view in sources] + [each.target for each in derived.values()]
    report = PrepareReport(
        out=str(out),
        frames=frames,
        bodies=bodies,
        classes=table.classes,
        coordinates=chosen,
        left_out=left_out,
        clips={key: kept.split.count(key) for key in SPLITS},
        per_class={key: kept.per_class(key) for key in SPLITS},
        unmatched_bodies=unmatched,
        surplus_bodies=sum(max(len(rows) - bodies, 0) for rows in present.values()),
        unpaired=[layout.name for layout in layouts if not layout.mirror_pairs],
        frame=placement.frame,
        size_by=placement.size,
        frame_why=frame_why,
        derived_from={name: each.source for name, each in derived.items()},
        notes=[*notes, *([] if coordinates else _score_notes(sources))],
    )
    writer = StoreWriter(
        out,
        name=name or out.resolve().name,
        layouts=layouts,
        classes=table.classes,
        frames=frames,
        bodies=bodies,
        source=source,
        coordinates=chosen,
        frame=placement.frame,
        size_by=placement.size,
        derived_from=report.derived_from,
    )
    with writer:
        rules = Rules(frames, placement, scale, planar=chosen == "xy_score")
        report.unframed = _Clips(sources, derived, table, present, rules).write(writer)
        report.views = {view.name: view.counts.report() for view in sources}
        writer.finish(report.to_dict())
    return report


class _Clips:
    """The clips that can be used, ready to be cleaned and written one by one."""

    def __init__(
        self,
        views: list[RawClips],
        derived: Mapping[str, Derivation],
        table: Table,
        present: Mapping[int, np.ndarray],
        rules: Rules,
    ) -> None:
        self._views, self._derived, self._table = views, derived, table
        self._present, self._rules = present, rules

    def write(self, writer: StoreWriter) -> dict[str, dict[str, list[str]]]:
        """Returns the clips whose frame could not be found: layout -> what is not seen -> names."""
        unframed: dict[str, dict[str, list[str]]] = {}
        table = self._table
        # Overflow ends in infinities, which are refused below, not in warnings.
        with np.errstate(over="ignore", invalid="ignore"):
            for clip, rows in self._present.items():
                rows = _most_moving(self._views, clip, rows, writer.bodies)
                prepared = self._clean(clip, rows)
                arrays = {k: self._fit(view, clip, k, writer) for k, view in prepared.items()}
                frames = {name: view.frame for name, view in prepared.items()}
                for name, frame in frames.items():
                    if frame.lacking:
                        of = unframed.setdefault(name, {}).setdefault(frame.lacking, [])
                        of.append(table.names[clip])
                mask = np.arange(writer.bodies) < len(rows)
                about = table.split[clip], arrays, mask, table.labels[clip], table.names[clip]
                writer.add(*about, frames)
        return unframed

    def _clean(self, clip: int, rows: np.ndarray) -> dict[str, Cleaned]:
        placement, views = self._rules.placement, self._views
        main = 0
        if placement.follows_main and len(rows) > 1:
            main = int(np.argmax(sum(view.motion(clip, rows) for view in views)))
        cleaned = {view.name: view.clean(clip, rows, self._rules, main) for view in views}
        for name, (source, target, matrix) in self._derived.items():
            xyz, ever, frame = cleaned[source]
            center = target.center_index if placement.centred else None
            xyz = derive_clips(matrix, xyz, ever, center, self._rules.planar)
            cleaned[name] = Cleaned(xyz, ever, frame)
        return cleaned

    def _fit(self, view: Cleaned, clip: int, name: str, writer: StoreWriter) -> np.ndarray:
        """A clip with places for all bodies of the data set, (M, T, V, 3) float32."""
        xyz = np.zeros((writer.bodies, *view.xyz.shape[1:]), np.float32)
        xyz[: len(view.xyz)] = view.xyz
        if not np.isfinite(xyz).all():
            raise InputError(
                f"{self._table.clip(clip)} has coordinates too large for float32 in view "
                f"{name}; check the clip, and the scale"
            )
        return xyz


def _score_notes(views: list[RawClips]) -> list[str]:
    return [
        f"the third coordinate of {view.name} lies in 0..1 and is 0 exactly where x and y are, as "
        "a score does: if it is one, prepare again with coordinates xy_score"
        for view in views
        if looks_like_score(view.clips)
    ]


def _find_bodies(
    views: list[RawClips], table: Table
) -> tuple[dict[int, np.ndarray], dict[int, Unusable], int]:
    """The bodies that all views have, of each clip that can be used; why not, of each other; and
    how many bodies of the former only some views have."""
    found: dict[int, np.ndarray] = {}
    unusable: dict[int, Unusable] = {}
    unmatched = 0
    for clip in range(len(table.labels)):
        present = [view.present(clip) for view in views]  # (M,) each
        lacking = [view for view, bodies in zip(views, present, strict=True) if not bodies.any()]
        if lacking:
            unusable[clip] = _nobody(clip, lacking[0], table)
            continue
        rows = np.nonzero(np.all(present, axis=0))[0]
        if not len(rows):
            why = "no body that each of its views has"
            message = f"{table.clip(clip)} has {why}; order the bodies alike in all views"
            unusable[clip] = Unusable(why, message)
            continue
        unmatched += int(np.any(present, axis=0).sum()) - len(rows)
        found[clip] = rows
    return found, unusable, unmatched


def _nobody(clip: int, view: RawClips, table: Table) -> Unusable:
    if not view.bodies(clip).shape[1]:
        shape = np.shape(view.clips[clip])
        message = f"{table.clip(clip)} in view {view.name} has no frame (shape {shape})"
        return Unusable(f"no frame in view {view.name}", message)
    why = f"no body in view {view.name}"
    return Unusable(
        why,
        f"{table.clip(clip)} has {why}: every joint of every frame is missing (NaN or 0)",
    )


def _most_moving(views: list[RawClips], clip: int, rows: np.ndarray, bodies: int) -> np.ndarray:
    if len(rows) <= bodies:
        return rows
    moved = sum(view.motion(clip, rows) for view in views)
    return rows[np.sort(np.argsort(-moved, kind="stable")[:bodies])]
