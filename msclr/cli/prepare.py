"""msclr prepare, msclr export-data"""

from __future__ import annotations

import argparse

from msclr.cli._command import command
from msclr.cli._layouts import HELP, layout_names, layout_of
from msclr.cli._output import ClipBar, say
from msclr.errors import InputError
from msclr.paths import as_path


def add(commands) -> None:
    text = "Turn clips into a prepared data set."
    parser = commands.add_parser("prepare", help=text, description=text)
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    for dataset, protocols in (("ntu60", ("xsub", "xview")), ("ntu120", ("xsub", "xset"))):
        _add_ntu(sources, dataset, protocols)
    _add_arrays(sources)
    _add_aimclr(sources)
    _add_pyskl(sources)
    _add_ctrgcn(sources)
    _add_export(commands)


def _add_output(parser: argparse.ArgumentParser) -> None:
    text = "folder to write"
    parser.add_argument("--out", required=True, type=as_path, metavar="DIR", help=text)
    parser.add_argument("--frames", type=int, default=50, help="frames per clip (%(default)s)")


def _add_coordinates(parser: argparse.ArgumentParser) -> None:
    text = "what the three channels are (default: xyz, unless they look like x, y and a score)"
    parser.add_argument("--coordinates", choices=("xyz", "xy_score"), help=text)
    parser.add_argument("--scale", type=float, default=1.0, help="metres per unit (%(default)s)")


def _add_bodies(parser: argparse.ArgumentParser) -> None:
    text = "most per clip, those that move most (default: as many as the fullest clip has)"
    parser.add_argument("--bodies", type=int, help=text)


def _add_frame(parser: argparse.ArgumentParser, default: str) -> None:
    from msclr.data.store import FRAMES, SIZES

    text = f"what the coordinates are relative to (default: {default})"
    parser.add_argument("--frame", choices=FRAMES, help=text)
    text = "divide by the length of the torso (default: torso in the frame body, else none)"
    parser.add_argument("--size", choices=SIZES, help=text)
    text = "layouts to derive from the first given one that allows it; docs/layouts.md"
    parser.add_argument("--derive", default="", metavar="LAYOUT,…", help=text)


def _add_usual(parser: argparse.ArgumentParser, frame: str = "camera") -> None:
    """What every source but NTU's own files has."""
    _add_output(parser)
    text = "refuse the clips where any would be left out (default: up to 5 %% may be)"
    parser.add_argument("--strict", action="store_true", help=text)
    _add_frame(parser, frame)


def _options(arguments) -> dict:
    """Options that the functions have by the same names; frame and size only where given."""
    names = ("frames", "bodies", "scale", "coordinates", "strict")
    options = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    given = {"frame": arguments.frame, "size": arguments.size}
    derive = [layout_of(name) for name in arguments.derive.split(",") if name]
    return options | {key: value for key, value in given.items() if value} | {"derive": derive}


def _by_layout(texts: list[str], option: str) -> dict:
    """LAYOUT=FOLDER, several times."""
    found = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise InputError(f"{option} takes LAYOUT=FOLDER, got {text!r}")
        layout = layout_of(name)
        if layout in found:
            raise InputError(f"{option} gives layout {layout.name} twice")
        found[layout] = as_path(folder)
    return found


# NTU RGB+D


def _add_ntu(sources, dataset: str, protocols: tuple[str, ...]) -> None:
    text = f"NTU RGB+D {dataset.removeprefix('ntu')} from its .skeleton files."
    parser = command(sources, dataset, _prepare_ntu, text)
    parser.add_argument(
        "--skeletons",
        required=True,
        nargs="+",
        type=as_path,
        metavar="DIR",
        help="folders or .zip files",
    )
    parser.add_argument("--protocol", required=True, choices=protocols)
    _add_output(parser)
    parser.add_argument(
        "--poses",
        action="append",
        default=[],
        metavar="LAYOUT=DIR",
        help="poses of the same clips under another layout; may be given several times",
    )
    parser.add_argument(
        "--pose-scale", type=float, default=0.001, help="metres per unit of them (%(default)s)"
    )
    parser.add_argument(
        "--absent-poses",
        choices=("drop", "keep"),
        default="drop",
        help="clips that have none: drop them, or keep them with that layout absent (%(default)s)",
    )
    _add_frame(parser, "ntu")
    parser.add_argument("--workers", type=int, help="processes (default: the cores there are)")
    _add_body_rules(parser)


def _add_body_rules(parser: argparse.ArgumentParser) -> None:
    from msclr.data.prepare.ntu.bodies import BodyRules

    common = BodyRules()
    rules = parser.add_argument_group("which bodies", "The defaults are what is common for NTU.")
    rules.add_argument("--bodies", type=int, default=2, help="kept at most (%(default)s)")

    def rule(name: str, kind: type, text: str) -> None:
        rules.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=getattr(common, name),
            help=f"{text} (%(default)s)",
        )

    rule("join_frames", int, "most frames between two ids of one person")
    rule("join_metres", float, "most metres between them; 0 joins none")
    rule("min_frames", int, "a body seen in fewer is a ghost; 1 keeps all")
    rule("wide", float, "a frame is a ghost's if x spreads over more than this times y; inf: none")
    rule("wide_share", float, "a body is a ghost if this share of its frames is")


def _prepare_ntu(arguments) -> None:
    from msclr.data.prepare.ntu import BodyRules, prepare_ntu
    from msclr.data.prepare.poses import PoseFolder

    poses = {
        layout: PoseFolder(folder, layout, arguments.pose_scale)
        for layout, folder in _by_layout(arguments.poses, "--poses").items()
    }
    rules = {name: getattr(arguments, name) for name in BodyRules.__dataclass_fields__}
    with ClipBar() as on_clip:
        report = prepare_ntu(
            arguments.source,
            arguments.skeletons,
            arguments.out,
            protocol=arguments.protocol,
            poses=poses,
            absent_poses=arguments.absent_poses,
            **_options(arguments),
            rules=BodyRules(**rules),
            workers=arguments.workers,
            on_clip=on_clip,
        )
    print("\n".join(report.lines()))


# Other sources


def _add_arrays(sources) -> None:
    parser = command(sources, "arrays", _prepare_arrays, "Clips of any convention in one .npz.")
    text = "labels, split, offset, view/<layout>"
    parser.add_argument("clips", type=as_path, metavar="CLIPS.npz", help=text)
    _add_usual(parser, "body if all layouts have landmarks for it, else camera")
    _add_coordinates(parser)
    parser.add_argument(
        "--layout",
        action="append",
        default=[],
        metavar="FILE.toml",
        help=f"layouts of your own: {HELP}",
    )


def _prepare_arrays(arguments) -> None:
    from msclr.data.prepare import prepare_arrays, read_npz

    for name in layout_names(arguments.layout):
        layout_of(name)  # a name that is not known is refused
    report = prepare_arrays(
        arguments.out,
        **read_npz(arguments.clips),
        source=str(arguments.clips),
        **_options(arguments),
    )
    print("\n".join(report.lines()))


def _add_aimclr(sources) -> None:
    text = (
        "Folders of AimCLR and CrosSCLR: {train,val}_position.npy, {train,val}_label.pkl. Also "
        "those of ST-GCN, 2s-AGCN and MS-G3D."
    )
    parser = command(sources, "aimclr", _prepare_aimclr, text)
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="DIR",
        help="a folder, or LAYOUT=DIR for each of several layouts of the same clips",
    )
    _add_coordinates(parser)
    _add_usual(parser)
    _add_bodies(parser)


def _prepare_aimclr(arguments) -> None:
    from msclr.data.prepare.aimclr import prepare_aimclr

    folders = arguments.folders
    alone = len(folders) == 1 and "=" not in folders[0]
    views = folders[0] if alone else _by_layout(folders, "prepare aimclr")
    report = prepare_aimclr(arguments.out, views, **_options(arguments))
    print("\n".join(report.lines()))


def _add_pyskl(sources) -> None:
    text = "A pickle of pyskl or mmaction2, of two or three dimensions."
    parser = command(sources, "pyskl", _prepare_pyskl, text)
    text = "one with its splits, or two lists: that of train, then that of val"
    parser.add_argument("files", nargs="+", type=as_path, metavar="FILE.pkl", help=text)
    _add_coordinates(parser)
    _add_usual(parser)
    _add_bodies(parser)
    parser.add_argument("--protocol", help="which of its splits, such as xsub")
    text = "needed where the number of joints leaves it open"
    parser.add_argument("--layout", metavar="NAME|FILE.toml", help=text)


def _prepare_pyskl(arguments) -> None:
    from msclr.data.prepare.pyskl import prepare_pyskl

    report = prepare_pyskl(
        arguments.out,
        tuple(arguments.files),
        protocol=arguments.protocol,
        layout=layout_of(arguments.layout) if arguments.layout else None,
        **_options(arguments),
    )
    print("\n".join(report.lines()))


def _add_ctrgcn(sources) -> None:
    text = "An .npz file of CTR-GCN: x_train, y_train, x_test, y_test."
    parser = command(sources, "ctrgcn", _prepare_ctrgcn, text)
    parser.add_argument("file", type=as_path, metavar="FILE.npz")
    _add_usual(parser)
    _add_bodies(parser)


def _prepare_ctrgcn(arguments) -> None:
    from msclr.data.prepare.ctrgcn import prepare_ctrgcn

    report = prepare_ctrgcn(arguments.out, arguments.file, **_options(arguments))
    print("\n".join(report.lines()))


# The other way


def _add_export(commands) -> None:
    text = "Write a prepared data set in a form that other projects read."
    parser = command(commands, "export-data", _export_data, text)
    parser.add_argument("data", type=as_path, metavar="DATA", help="a prepared folder")
    parser.add_argument("--format", required=True, choices=("aimclr", "pyskl"))
    text = "folder (aimclr) or file (pyskl) to write"
    parser.add_argument("--out", required=True, type=as_path, help=text)
    parser.add_argument("--layout", help="which one; needed where the data set has several")


def _export_data(arguments) -> None:
    from msclr.data.export import export_aimclr, export_pyskl

    export = {"aimclr": export_aimclr, "pyskl": export_pyskl}[arguments.format]
    say(f"written to {export(arguments.data, arguments.out, arguments.layout)}")
