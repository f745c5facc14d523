"""msclr evaluate, msclr ensemble"""

from __future__ import annotations

from typing import Any

from msclr.cli._command import command
from msclr.cli._output import print_json, say
from msclr.errors import InputError

ROUTES = ("auto", "derive", "attach", "both")  # of msclr.encoder, which needs torch
ROUTE_HELP = (
    "for a layout that the encoder was not trained on: derive it to the known one that loses "
    "least, attach it directly, or both (default: the one that measured best)"
)
STREAM_HELP = (
    "joint, motion or bone, of a run that trained an encoder for each; joint+motion+bone trains "
    "their classifiers together, on the mean of their logits (default: the recipe's, or joint)"
)
LINEAR_OPTIONS = ("epochs", "lr", "batch_size")


def add(commands) -> None:
    _add_evaluate(commands)
    _add_ensemble(commands)


def _add_evaluate(commands) -> None:
    text = "Evaluate the frozen encoder of a run."
    parser = command(commands, "evaluate", _evaluate, text)
    parser.add_argument("protocol", choices=("linear", "knn", "transfer"))
    parser.add_argument("run_folder", metavar="RUN")
    _add_evaluation_options(parser)
    parser.add_argument("--stream", help=STREAM_HELP)
    text = "of transfer: the layout of the run's data whose train clips and labels are trained on"
    parser.add_argument("--train-layout", metavar="LAYOUT", help=text)
    text = "of transfer: the prepared folder whose labels are used (default: the recipe's)"
    parser.add_argument("--train-data", metavar="FOLDER", help=text)
    text = "of transfer: the layout whose val clips are tested on, in --data if given"
    parser.add_argument("--test-layout", metavar="LAYOUT", help=text)


def _add_ensemble(commands) -> None:
    text = "Average linear classifiers over layouts, and add up those of several streams."
    parser = command(commands, "ensemble", _ensemble, text)
    parser.add_argument("run_folders", metavar="RUN", nargs="+")
    _add_evaluation_options(parser)
    text = "such as joint+bone: of runs that trained several, only these (default: all they have)"
    parser.add_argument("--stream", help=text)


def _add_evaluation_options(parser) -> None:
    parser.add_argument("--layout", action="append", help="one or more; default: all of the data")
    parser.add_argument("--data", help="prepared folder; default: the recipe's")
    parser.add_argument("--route", choices=ROUTES, default="auto", help=ROUTE_HELP)
    parser.add_argument("--random", action="store_true", help="a newly initialised encoder instead")
    parser.add_argument("--device", help="cpu, cuda or auto; default: the recipe's")
    parser.add_argument("--lr", type=float, help="of the linear classifiers; default: 3")
    parser.add_argument("--epochs", type=int, help="of the linear classifiers; default: 100")
    parser.add_argument("--batch-size", type=int, help="of the linear classifiers; default: 128")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _evaluate(arguments) -> None:
    from msclr.evaluation import evaluate_knn, evaluate_linear, open_run
    from msclr.evaluation.protocols import data_layouts
    from msclr.evaluation.run import chosen_streams

    options = _linear_options(arguments)
    if options and arguments.protocol == "knn":
        given = ", ".join("--" + name.replace("_", "-") for name in options)
        raise InputError(f"{arguments.protocol} trains nothing and takes no {given}; leave it out")
    _check_transfer(arguments)
    run = open_run(arguments.run_folder, arguments.random, arguments.device)
    chosen_streams(run, arguments.stream)  # refuses one that the run has no encoder of
    if arguments.protocol == "transfer":
        return _transfer(run, arguments, options)
    evaluate = {"linear": evaluate_linear, "knn": evaluate_knn}[arguments.protocol]
    results = []
    for layout in arguments.layout or data_layouts(run, arguments.data):
        result = evaluate(
            run, layout, arguments.data, arguments.stream, route=arguments.route, **options
        )
        results.append(result)
        if not arguments.json:
            print(_line(results[-1]))
        _say_notes(_named_notes(results[-1:]))
    if arguments.json:
        every = {"results": results, "notes": _named_notes(results)}
        print_json(results[0] if len(results) == 1 else {**results[0], **every})


def _check_transfer(arguments) -> None:
    pair = arguments.train_layout, arguments.test_layout
    if arguments.protocol == "transfer":
        if None in pair or arguments.layout:
            raise InputError("transfer takes --train-layout A and --test-layout B, and no --layout")
    elif (*pair, arguments.train_data) != (None, None, None):
        raise InputError(
            f"{arguments.protocol} takes no --train-layout, --test-layout and --train-data; give "
            "--layout, or evaluate transfer"
        )


def _transfer(run, arguments, options: dict[str, float]) -> None:
    from msclr.evaluation import evaluate_transfer

    asked = arguments.train_layout, arguments.test_layout, arguments.data, arguments.stream
    options = {"route": arguments.route, "train_data": arguments.train_data, **options}
    result = evaluate_transfer(run, *asked, **options)
    if arguments.json:
        print_json(result)
    else:
        print(_line(result))
    _say_notes(_named_notes([result]))


def _ensemble(arguments) -> None:
    from msclr.evaluation import evaluate_ensemble, open_run
    from msclr.evaluation.run import chosen_streams

    opened = [open_run(x, arguments.random, arguments.device) for x in arguments.run_folders]
    runs = [run for one in opened for run in chosen_streams(one, arguments.stream)]
    options = {"route": arguments.route, **_linear_options(arguments)}
    result = evaluate_ensemble(runs, arguments.layout, arguments.data, **options)
    _say_notes(result["notes"])
    if arguments.json:
        print_json(result)
        return
    for member in result["members"]:
        name = f"{member['layout']} ({member['stream']}, {member['run']})"
        print(f"{name}: top-1 {member['top1']:.1f} %, weight {member['weight']:g}")
    print(f"ensemble: top-1 {result['top1']:.1f} %, top-5 {result['top5']:.1f} %")


def _linear_options(arguments) -> dict[str, float]:
    """Those that were given; the others keep the protocol's defaults."""
    options = {name: getattr(arguments, name) for name in LINEAR_OPTIONS}
    return {name: value for name, value in options.items() if value is not None}


def _named_notes(results: list[dict[str, Any]]) -> list[str]:
    return [f"{result['layout']}: {note}" for result in results for note in result["notes"]]


def _say_notes(notes: list[str]) -> None:
    for note in notes:
        say(f"msclr: note: {note}")


def _line(result: dict[str, Any]) -> str:
    head = f"{result['protocol']} {result['layout']} ({result['stream']}, {result['encoder']})"
    if "by_k" in result:
        scores = ", ".join(f"k={k}: {v:.1f} %" for k, v in result["by_k"].items())
        return f"{head}: {scores}"
    worst = sorted((v, k) for k, v in result["per_class"].items() if v is not None)[:3]
    return (
        f"{head}: top-1 {result['top1']:.1f} %, top-5 {result['top5']:.1f} % (best epoch "
        f"{result['best_epoch']}: {result['best_top1']:.1f} %); weakest classes "
        + ", ".join(f"{name} {value:.0f} %" for value, name in worst)
    )
