"""msclr evaluate, msclr ensemble"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msclr.cli._command import Once, command
from msclr.cli._layouts import HELP, layout_names
from msclr.cli._output import Progress, print_json, say
from msclr.errors import InputError

ROUTES = ("auto", "derive", "attach", "both")  # of msclr.encoder, which needs torch
ROUTE_HELP = (
    "for a layout that the encoder was not trained on: derive it to the known one that loses "
    "least, attach it directly, or both (default: the one that measured best)"
)
MIRROR_HELP = (
    "features are the mean of those of a clip and of its mirror image, which left- and "
    "right-handed people share; for classes that do not depend on the side"
)
STREAM_HELP = (
    "joint, motion or bone, of a run that trained an encoder for each; joint+motion+bone trains "
    "their classifiers together, on the mean of their logits (default: the recipe's, or joint)"
)
PROTOCOLS = ("linear", "knn", "semi", "finetune", "retrieval", "transfer")
FROZEN = ("linear", "knn", "retrieval")  # of features that are computed once
UNTRAINED = ("knn", "retrieval")
SOLVERS = ("sgd", "lbfgs")  # of msclr.evaluation.linear
TRAINING_OPTIONS = ("epochs", "lr", "batch_size", "solver")


def add(commands) -> None:
    _add_evaluate(commands)
    _add_ensemble(commands)


def _add_evaluate(commands) -> None:
    text = (
        "Evaluate the encoders of runs: linear, knn and retrieval on frozen features; semi and "
        "finetune train all weights; transfer goes to another data set or layout."
    )
    parser = command(commands, "evaluate", _evaluate, text)
    parser.add_argument("protocol", choices=PROTOCOLS)
    parser.add_argument("run_folders", metavar="RUN", nargs="+")
    defaults = "3; 0.1 of semi and finetune", "100; 60 of semi, 70 of finetune", "128; 64 of those"
    _add_evaluation_options(parser, *defaults)
    parser.add_argument("--stream", help=STREAM_HELP)
    text = "such as 0,1,2: of what is trained, and of the draw of semi (default: 0)"
    parser.add_argument("--seeds", metavar="N,N", help=text)
    text = "of semi: the share of the train clips of each class whose labels are used, such as 0.01"
    parser.add_argument("--labels", type=float, metavar="SHARE", help=text)
    text = "of transfer --data: finetune on the other data as well"
    parser.add_argument("--finetune", action="store_true", help=text)
    text = "keep what was found for each val clip in an .npz file next to the result"
    parser.add_argument("--scores", action="store_true", help=text)
    text = "keep the confusion matrix as .csv and .png next to the result"
    parser.add_argument("--confusion", action="store_true", help=text)
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
    _add_evaluation_options(parser, "3", "100", "128")
    text = "such as joint+bone: of runs that trained several, only these (default: all they have)"
    parser.add_argument("--stream", help=text)


def _add_evaluation_options(parser, lr: str, epochs: str, batch_size: str) -> None:
    text = f"{HELP}; default: all of the data"
    parser.add_argument("--layout", action="append", help=text)
    parser.add_argument("--data", action=Once, help="prepared folder; default: the recipe's")
    parser.add_argument("--route", choices=ROUTES, default="auto", help=ROUTE_HELP)
    parser.add_argument("--mirror", action="store_true", help=MIRROR_HELP)
    parser.add_argument("--random", action="store_true", help="a newly initialised encoder instead")
    parser.add_argument("--device", help="cpu, cuda or auto; default: the recipe's")
    parser.add_argument("--lr", type=float, help=f"of what is trained; default: {lr}")
    parser.add_argument("--epochs", type=int, help=f"of what is trained; default: {epochs}")
    parser.add_argument("--batch-size", type=int, help=f"of it; default: {batch_size}")
    text = (
        "of linear classifiers: sgd as the papers have it, or lbfgs, logistic regression on "
        "standardised features until it converges, for small sets (default: sgd)"
    )
    parser.add_argument("--solver", choices=SOLVERS, help=text)
    text = "print one JSON object; of several results a list"
    parser.add_argument("--json", action="store_true", help=text)


def _evaluate(arguments) -> None:
    from msclr.cli._results import line_of, line_of_summary, lines_of_files
    from msclr.evaluation import open_run
    from msclr.evaluation.run import chosen_streams
    from msclr.evaluation.splits import check_layouts
    from msclr.evaluation.summary import summarise

    _check(arguments)
    seeds, layouts = _seeds(arguments), _layouts(arguments)
    runs = [open_run(x, arguments.random, arguments.device) for x in arguments.run_folders]
    for run in runs:
        chosen_streams(run, arguments.stream)  # refuses one that the run has no encoder of
        if layouts and not arguments.train_layout:
            check_layouts(run, layouts, arguments.data)
    _check_distinct(runs)
    show = [key for key, of in (("run", runs), ("seed", seeds)) if len(of) > 1]
    results, noted = [], set()
    for result in _results(runs, seeds, arguments):
        results.append(result)
        if not arguments.json:
            print(line_of(result, [key for key in show if key in result]))
        for text in lines_of_files(result):
            say(f"msclr: {text}")
        notes = _named_notes(result, "run" in show)
        _say_notes([note for note in notes if note not in noted])  # of features, for each seed
        noted.update(notes)
    if arguments.json:
        print_json(results[0] if len(results) == 1 else results)
    for summary in summarise(results) if show else ():
        (say if arguments.json else print)(line_of_summary(summary))


def _results(runs, seeds, arguments) -> Iterator[dict[str, Any]]:
    from msclr.evaluation.splits import data_layouts

    for run in runs:
        if arguments.train_layout:
            yield from _transfers(run, seeds, arguments)
            continue
        for layout in _layouts(arguments) or data_layouts(run, arguments.data):
            yield from _of_layout(run, layout, seeds, arguments)


def _of_layout(run, layout: str, seeds, arguments) -> Iterator[dict[str, Any]]:
    from msclr import evaluation
    from msclr.evaluation.splits import features_of

    protocols = (arguments.protocol,)
    if arguments.protocol == "transfer":
        protocols = ("linear", "knn", *(("finetune",) if arguments.finetune else ()))
    asked = {"data": arguments.data, "stream": arguments.stream, "route": arguments.route}
    asked |= {"mirror": True} if arguments.mirror else {}  # refused where weights are trained
    features = features_of(run, layout, **asked) if protocols[0] in FROZEN else None
    asked["also"] = _also(arguments)
    for protocol in protocols:
        evaluate = getattr(evaluation, f"evaluate_{protocol}")
        if protocol in UNTRAINED:
            yield evaluate(run, layout, **asked, features=features)
            continue
        options = asked | _training_options(arguments)
        if protocol == "semi":
            options["labels"] = arguments.labels
        for seed in seeds:
            if protocol in FROZEN:
                yield evaluate(run, layout, seed=seed, **options, features=features)
                continue
            progress = Progress("epoch")
            try:
                result = evaluate(run, layout, seed=seed, **options, on_epoch=progress.update)
            finally:
                progress.close()
            yield result


def _transfers(run, seeds, arguments) -> Iterator[dict[str, Any]]:
    from msclr.evaluation.transfer import evaluate_transfer, transfer_features

    asked = run, arguments.train_layout, arguments.test_layout, arguments.data, arguments.stream
    options = {name: getattr(arguments, name) for name in ("route", "train_data", "mirror")}
    features = transfer_features(*asked, **options)
    options |= {"also": _also(arguments), "features": features, **_training_options(arguments)}
    for seed in seeds:
        yield evaluate_transfer(*asked, seed=seed, **options)


def _check(arguments) -> None:
    """Raise InputError for options that do not go together, before the long part."""
    from msclr.evaluation.finetune import check_share
    from msclr.evaluation.linear import check_options

    protocol, options = arguments.protocol, _training_options(arguments)
    given = [*options, *(["seeds"] if arguments.seeds is not None else [])]
    if given and protocol in UNTRAINED:
        names = ", ".join("--" + name.replace("_", "-") for name in given)
        raise InputError(f"{protocol} trains nothing and takes no {names}; leave it out")
    if (protocol == "semi") != (arguments.labels is not None):
        if protocol != "semi":
            raise InputError(f"{protocol} takes no --labels; leave it out, or evaluate semi")
        raise InputError("semi takes --labels SHARE, the share of labels to use, such as 0.01")
    if arguments.confusion and protocol == "retrieval":
        raise InputError("retrieval predicts no class: it takes no --confusion; leave it out")
    if arguments.mirror and (arguments.finetune or protocol in ("semi", "finetune")):
        raise InputError("--mirror is for frozen encoders, not for semi and finetune; leave it out")
    _check_transfer(arguments)
    if protocol == "semi":
        check_share(arguments.labels)
    solver = options.pop("solver", "sgd")
    if "solver" in given and protocol in ("semi", "finetune"):
        raise InputError(f"{protocol} trains all weights and takes no --solver; leave it out")
    if solver == "lbfgs" and given != ["solver"]:
        raise InputError(
            "--solver lbfgs takes no --seeds, --epochs, --lr and --batch-size; leave them out"
        )
    what = "finetuning" if protocol in ("semi", "finetune") else "linear evaluation"
    check_options(**{"epochs": 1, "lr": 1.0, "batch_size": 1} | options, what=what)


def _check_transfer(arguments) -> None:
    pair = arguments.train_layout, arguments.test_layout
    between_layouts = (*pair, arguments.train_data) != (None, None, None)
    if arguments.protocol != "transfer":
        if between_layouts:
            raise InputError(
                f"{arguments.protocol} takes no --train-layout, --test-layout and --train-data; "
                "give --layout, or evaluate transfer"
            )
        if arguments.finetune:
            raise InputError(f"{arguments.protocol} takes no --finetune; evaluate finetune")
    elif between_layouts:
        if None in pair or arguments.layout or arguments.finetune:
            raise InputError(
                "transfer between layouts takes --train-layout A and --test-layout B, and no "
                "--layout and no --finetune"
            )
    elif arguments.data is None:
        raise InputError(
            "transfer takes --data OTHER, another data set, or takes --train-layout A and "
            "--test-layout B"
        )
    elif arguments.finetune and _training_options(arguments):
        raise InputError(
            "transfer --finetune trains a classifier and an encoder, each by its own defaults, and "
            "takes no --lr, --epochs, --batch-size and --solver; evaluate linear and finetune with "
            "--data"
        )


def _check_distinct(runs) -> None:
    """Raise InputError for a run given twice, of which a mean would be none."""
    paths = [run.path.resolve() for run in runs]
    for path in paths:
        if paths.count(path) > 1:
            raise InputError(f"{path} is given twice; give each run once")


def _seeds(arguments) -> list[int]:
    try:
        seeds = [int(x) for x in ("0" if arguments.seeds is None else arguments.seeds).split(",")]
    except ValueError:
        seeds = []
    if not seeds or not 0 <= min(seeds) <= max(seeds) < 2**63 or len(set(seeds)) < len(seeds):
        raise InputError(
            f"seeds is {arguments.seeds!r}; wanted different whole numbers of 0 or more (below "
            "2^63), such as 0,1,2"
        )
    return seeds


def _layouts(arguments) -> list[str] | None:
    """Those asked for, as a,b or repeated."""
    if arguments.layout is None:
        return None
    names = layout_names(arguments.layout)
    return list(dict.fromkeys(names))


def _also(arguments) -> list[str]:
    return [name for name in ("scores", "confusion") if getattr(arguments, name)]


def _ensemble(arguments) -> None:
    from msclr.evaluation import evaluate_ensemble, open_run
    from msclr.evaluation.run import chosen_streams

    opened = [open_run(x, arguments.random, arguments.device) for x in arguments.run_folders]
    runs = [run for one in opened for run in chosen_streams(one, arguments.stream)]
    options = {"route": arguments.route, "mirror": arguments.mirror, **_training_options(arguments)}
    result = evaluate_ensemble(runs, _layouts(arguments), arguments.data, **options)
    _say_notes(result["notes"])
    if arguments.json:
        print_json(result)
        return
    for member in result["members"]:
        name = f"{member['layout']} ({member['stream']}, {member['run']})"
        print(f"{name}: top-1 {member['top1']:.1f} %, weight {member['weight']:g}")
    print(f"ensemble: top-1 {result['top1']:.1f} %, top-5 {result['top5']:.1f} %")


def _training_options(arguments) -> dict[str, float]:
    """Those that were given; the others keep the protocol's defaults."""
    options = {name: getattr(arguments, name) for name in TRAINING_OPTIONS}
    return {name: value for name, value in options.items() if value is not None}


def _named_notes(result: dict[str, Any], of_run: bool) -> list[str]:
    name = f"{result['layout']} ({result['run']})" if of_run else result["layout"]
    return [f"{name}: {note}" for note in result["notes"]]


def _say_notes(notes: list[str]) -> None:
    for note in notes:
        say(f"msclr: note: {note}")
