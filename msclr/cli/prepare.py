"""msclr prepare"""

from __future__ import annotations

from msclr.cli._command import command


def add(commands) -> None:
    text = "Turn clips into a prepared data set."
    parser = commands.add_parser("prepare", help=text, description=text)
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    arrays = command(sources, "arrays", _prepare_arrays, "Clips of any convention in one .npz.")
    arrays.add_argument("clips", metavar="CLIPS.npz", help="labels, split, offset, view/<layout>")
    arrays.add_argument("--out", required=True, help="folder to write")
    arrays.add_argument(
        "--layout", action="append", default=[], metavar="FILE.toml", help="a layout of your own"
    )
    arrays.add_argument("--scale", type=float, default=1.0, help="metres per unit (%(default)s)")
    arrays.add_argument("--frames", type=int, default=50, help="frames a clip (%(default)s)")


def _prepare_arrays(arguments) -> None:
    from msclr import layouts
    from msclr.data.prepare import prepare_arrays, read_npz

    for path in arguments.layout:
        layouts.register(layouts.load(path))
    report = prepare_arrays(
        arguments.out,
        **read_npz(arguments.clips),
        scale=arguments.scale,
        frames=arguments.frames,
        source=arguments.clips,
    )
    print("\n".join(report.lines()))
