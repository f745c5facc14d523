"""Writing an encoder to files that run without this library: ONNX, and torch.export's .pt2."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from msclr import __version__
from msclr.encoder import Encoder, Route
from msclr.errors import InputError
from msclr.export.model import ExportModel, Head, routes_of
from msclr.files import replacing, require_writable
from msclr.paths import as_path

FORMAT = "msclr-export-1"
KEY = "msclr"  # of the description, in the metadata of a file
_CLOSE = 1e-4  # of the largest feature: rounding takes a hundredth of it


class Exported(NamedTuple):
    """What was written, and how far its features are from the encoder's, relative to the largest;
    None where the file could not be run here."""

    path: Path
    difference: float | None
    description: dict[str, Any]


def export(
    encoder: Encoder,
    *,
    onnx: str | os.PathLike[str] | None = None,
    pt2: str | os.PathLike[str] | None = None,
    layouts: Sequence[str] | None = None,
    heads: Sequence[Head] = (),
) -> list[Exported]:
    """Write an encoder with its preparation to a file, or two; see docs/export.md.

    The model has an input named as each layout, clips (N, M, T, V, 3) float32 of any number, bodies
    and length, metres as a sensor gives them (of an encoder for clips of two dimensions x, y and a
    score), and for each an output ``<layout>_features`` (N, D) float32. NaN and 0, 0, 0 are missing
    joints, a body without a joint is absent; a clip that :meth:`Encoder.embed` refuses has NaN.

    Args:
        encoder: see :func:`msclr.load`.
        onnx: a file to write, which onnxruntime and others run.
        pt2: a file to write, which ``torch.export.load`` reads.
        layouts: of the clips; None for all that the encoder knows. One that it does not know is
            derived to one that it does.
        heads: linear classifiers, see :func:`msclr.export.head_of`; each adds an output
            ``<layout>_logits`` (N, classes).

    Each file is run on generated clips and compared with the encoder before it gets its name.

    Raises:
        InputError: no file, or one that exists; a layout without a route that can be written; a
            head of a layout that is not exported; ONNX where its packages are not installed.
    """
    files = {kind: as_path(path) for kind, path in (("onnx", onnx), ("pt2", pt2)) if path}
    _check_files(files)
    routes = routes_of(encoder, list(layouts) if layouts else None)
    names = [route.layout.name for route in routes]
    by_layout = {head.layout: head for head in heads}
    for head in heads:
        if head.layout not in names:
            raise InputError(
                f"the classifier of {head.evaluation} is for {head.layout}, which is not exported "
                f"(but {', '.join(names)}); name it with --layout"
            )
    model = ExportModel(encoder, routes, by_layout).cpu().eval()
    clips = [_made_clips(encoder, route) for route in routes]
    program = _traced(model, clips)
    description = _describe(encoder, routes, by_layout)
    wanted = [_embedded(encoder, of, route) for of, route in zip(clips, routes, strict=True)]
    writers = {"onnx": _write_onnx, "pt2": _write_pt2}
    return [
        _write(path, writers[kind], program, description, clips, wanted)
        for kind, path in files.items()
    ]


def _check_files(files: dict[str, Path]) -> None:
    if not files:
        raise InputError("an export to no file; give onnx or pt2")
    for kind, path in files.items():
        if path.suffix != f".{kind}":
            raise InputError(f"--{kind} is {path}; give a file that ends in .{kind}")
        if path.exists():
            raise InputError(f"{path} exists; choose another file, or remove it")
        require_writable(path)
    lacking = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if "onnx" in files and lacking:
        raise InputError(
            f"to write ONNX the package {lacking[0]} is missing; pip install 'msclr[export]'"
        )


def _traced(model: ExportModel, clips: list[Tensor]) -> torch.export.ExportedProgram:
    """Numbers of clips, bodies and frames are left open, each input's for itself."""
    dim = torch.export.Dim
    shapes = tuple(
        {axis: dim(f"{what}_{name}") for axis, what in enumerate(("clips", "bodies", "frames"))}
        for name in model.layouts
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own code
        return torch.export.export(model, tuple(clips), dynamic_shapes={"clips": shapes})


def _describe(encoder: Encoder, routes: list[Route], heads: dict[str, Head]) -> dict[str, Any]:
    """What whoever runs the file has to know, kept in it as JSON."""
    outputs = {}
    for route in routes:
        name = route.layout.name
        outputs[f"{name}_features"] = {"shape": ["clips", encoder.dim]}
        if name in heads:
            head = heads[name]
            about = {"classes": head.classes, "evaluation": head.evaluation}
            outputs[f"{name}_logits"] = {"shape": ["clips", len(head.classes)], **about}
    unit = "x, y and score" if encoder.preparation.planar else "metres, x, y, z"
    return {
        "format": FORMAT,
        "msclr": __version__,
        "source": str(encoder.source),
        "stream": encoder.stream,
        "preparation": asdict(encoder.preparation),
        "missing": "NaN or 0, 0, 0",
        "unusable": "NaN features",
        "inputs": {
            route.layout.name: {
                "shape": ["clips", "bodies", "frames", route.layout.num_joints, 3],
                "dtype": "float32",
                "coordinates": unit,
                "joints": list(route.layout.joints),
                "route": route.line,
            }
            for route in routes
        },
        "outputs": outputs,
    }


Run = Callable[[list[Tensor]], list[Tensor]]


def _write(
    path: Path,
    writer: Callable[..., Run | None],
    program: torch.export.ExportedProgram,
    description: dict[str, Any],
    clips: list[Tensor],
    wanted: list[Tensor],
) -> Exported:
    with replacing(path) as partial:
        run = writer(partial, program, description)
        difference = None
        if run is not None:
            found = dict(zip(description["outputs"], run(clips), strict=True))
            features = [found[f"{name}_features"] for name in description["inputs"]]
            difference = _difference(features, wanted)
            if not difference < _CLOSE:
                raise RuntimeError(
                    f"the exported model's features differ from the encoder's by {difference:.2g} "
                    "of the largest; it was not kept. Please report this"
                )
    return Exported(path, difference, description)


def _write_pt2(partial: Path, program: torch.export.ExportedProgram, description: dict) -> Run:
    torch.export.save(program, partial, extra_files={f"{KEY}.json": json.dumps(description)})
    kept = torch.export.load(partial).module()
    return lambda clips: [out.detach() for out in kept(*clips)]


def _write_onnx(
    partial: Path, program: torch.export.ExportedProgram, description: dict
) -> Run | None:
    # It says which packages would have had operators that are not used here.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(
            program,
            input_names=list(description["inputs"]),
            output_names=list(description["outputs"]),
            dynamo=True,
            verbose=False,
        )
    made.model.metadata_props[KEY] = json.dumps(description)
    made.save(str(partial))
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(str(partial), providers=["CPUExecutionProvider"])
    names = list(description["inputs"])

    def run(clips: list[Tensor]) -> list[Tensor]:
        given = {name: of.numpy() for name, of in zip(names, clips, strict=True)}
        return [torch.from_numpy(out) for out in session.run(None, given)]

    return run


def _made_clips(encoder: Encoder, route: Route) -> Tensor:
    """Bodies that stand, sway and lack some joints, about as large as those of the training data:
    (3, M, 40, V, 3) float32, one of M = 2 bodies absent."""
    rng = np.random.default_rng(0)
    joints, extent = route.layout.num_joints, encoder.preparation.extent or 1.7
    size = np.array([0.15, 0.3, 0.15]) * extent
    place = rng.uniform(-1, 1, (3, 2, 1, joints, 3)) * size + [0.1, 0.2, 3.0]
    time = np.linspace(0, 2 * np.pi, 40)[:, None, None]
    sway = np.sin(time * rng.uniform(0.5, 2, (3, 2, 1, joints, 3)))
    clips = place + 0.05 * extent * sway
    clips[..., 0] += 0.6 * np.arange(2)[:, None, None]
    clips[0, 1] = 0
    clips[1, 0, 5:9, : joints // 3] = np.nan
    return torch.from_numpy(clips.astype(np.float32))


def _embedded(encoder: Encoder, clips: Tensor, route: Route) -> Tensor:
    """By the encoder; what it would say of generated clips is nobody's concern."""
    logger = logging.getLogger("msclr.encoder")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return encoder.embed(clips, route.layout, route.kind if route.passage else None)
    finally:
        logger.setLevel(before)


def _difference(found: list[Tensor], wanted: list[Tensor]) -> float:
    apart = [
        ((a - b).abs().max() / b.abs().max().clamp(min=1e-30)).item()
        for a, b in zip(found, wanted, strict=True)
    ]
    return float(np.max(apart))  # NaN stays
