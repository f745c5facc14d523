"""msclr embed"""

from __future__ import annotations

from msclr.cli._command import command
from msclr.cli._output import say
from msclr.cli.evaluate import MIRROR_HELP, ROUTE_HELP, ROUTES
from msclr.errors import InputError


def add(commands) -> None:
    text = (
        "Features of clips by a frozen encoder, of whole clips or of windows of long recordings. "
        "Clips are prepared as the encoder's training data were."
    )
    parser = command(commands, "embed", _embed, text)
    parser.add_argument(
        "encoder", metavar="RUN", help="a run's folder, or a checkpoint, of other projects too"
    )
    parser.add_argument(
        "clips",
        metavar="CLIPS",
        help="an .npz as prepare arrays reads it (labels, split and offset may be left out), an "
        ".npy of one clip (T, V, 3) or (M, T, V, 3), or a prepared folder",
    )
    parser.add_argument("--out", required=True, help="the .npz file to write")
    parser.add_argument("--layout", help="of the clips: a name or a .toml file")
    parser.add_argument("--window", type=int, help="frames of a window; default: whole clips")
    parser.add_argument("--stride", type=int, help="frames between windows; default: half of one")
    parser.add_argument("--route", choices=ROUTES, default="auto", help=ROUTE_HELP)
    text = (
        "joint, motion or bone: which encoder of a run that trained one for each, or what another "
        "project's checkpoint was trained on (default: joint)"
    )
    parser.add_argument("--stream", help=text)
    parser.add_argument("--mirror", action="store_true", help=MIRROR_HELP)
    parser.add_argument("--plot", action="store_true", help="also a picture, next to the file")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (%(default)s)")


def _embed(arguments) -> None:
    from msclr.encoder import load
    from msclr.encoder.embed import embed_file
    from msclr.files import require_writable
    from msclr.paths import as_path

    out = as_path(arguments.out)
    if out.suffix != ".npz":
        raise InputError(f"--out is {out}; give a file that ends in .npz")
    picture = out.with_suffix(".png") if arguments.plot else None
    for path in (out, picture):
        if path is not None and path.exists():
            raise InputError(f"{path} exists; choose another --out, or remove it")
    require_writable(out)
    how = {name: getattr(arguments, name) for name in ("stream", "route", "device")}
    encoder = load(arguments.encoder, **how)
    asked = arguments.layout, arguments.window, arguments.stride
    result = embed_file(encoder, arguments.clips, out, *asked, picture, arguments.mirror)
    for note in result.notes:
        say(f"msclr: note: {note}")
    print(f"{result.line}, written to {out}")
    if picture:
        print(f"picture written to {picture}")
