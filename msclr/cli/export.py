"""msclr export"""

from __future__ import annotations

from msclr.cli._command import command
from msclr.cli._layouts import HELP, layout_names
from msclr.cli._output import say
from msclr.errors import InputError


def add(commands) -> None:
    text = (
        "Write an encoder to a file that runs without this library: metres in, features out. "
        "The file is compared with the encoder before it gets its name."
    )
    parser = command(commands, "export", _export, text)
    parser.add_argument(
        "encoder", metavar="RUN", help="a run's folder, or a checkpoint, of other projects too"
    )
    parser.add_argument("--onnx", metavar="FILE", help="an .onnx file to write")
    parser.add_argument("--pt2", metavar="FILE", help="a .pt2 file to write, of torch.export")
    parser.add_argument(
        "--layout",
        action="append",
        help=f"of the clips: {HELP}; default: all that the encoder knows",
    )
    parser.add_argument("--stream", help="which encoder of a run that trained one for each stream")
    text = "a linear evaluation of the run, whose classifier's logits become an output"
    parser.add_argument("--classifier", metavar="EVALUATION", action="append", help=text)


def _export(arguments) -> None:
    if not (arguments.onnx or arguments.pt2):
        raise InputError("nothing to write; give --onnx FILE or --pt2 FILE")
    from msclr.encoder import load
    from msclr.export import export

    stream = arguments.stream
    encoder = load(arguments.encoder, stream=stream, route="derive", device="cpu")
    heads = _heads(arguments) if arguments.classifier else []
    layouts = layout_names(arguments.layout or ())
    files = {"onnx": arguments.onnx, "pt2": arguments.pt2}
    for done in export(encoder, **files, layouts=layouts or None, heads=heads):
        about = done.description
        print(f"{done.path}: {', '.join(about['inputs'])} to {', '.join(about['outputs'])}")
        if done.difference is None:
            say("msclr: note: not compared with the encoder, as onnxruntime is not installed")
        else:
            print(f"  its features differ from the encoder's by {done.difference:.1g} at most")
    for name, given in about["inputs"].items():
        if "route" in given and name not in encoder.layouts:
            say(f"msclr: note: {given['route']}")


def _heads(arguments) -> list:
    from msclr.evaluation import open_run
    from msclr.export import head_of

    run = open_run(arguments.encoder, device="cpu")
    run = run.of_stream(arguments.stream) if arguments.stream else run
    return [head_of(run, name) for name in arguments.classifier]
