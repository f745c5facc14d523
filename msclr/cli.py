"""The ``msclr`` command: the only place that prints."""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from msclr import __version__
from msclr.errors import DivergedError, InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Exit status 0, 2 for bad input, 1 for a run that failed."""
    arguments = _parse(argv)
    logging.basicConfig(level=logging.WARNING, format="msclr: %(message)s", stream=sys.stderr)
    try:
        arguments.run(arguments)
    except InputError as error:
        _say(f"msclr: error: {error}")
        return 2
    except DivergedError as error:
        _say(f"msclr: stopped: {error}")
        return 1
    except KeyboardInterrupt:
        _say("msclr: interrupted")
        return 130
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """argparse, but key=value may also follow an option: ``pretrain toy --resume epochs=3``."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    overrides = [text for text in rest if "=" in text and not text.startswith("-")]
    if rest and (overrides != rest or not hasattr(arguments, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides += rest
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="msclr", description="Fast multi-skeleton contrastive learning."
    )
    parser.add_argument("--version", action="version", version=f"msclr {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_prepare(commands)
    _add_pretrain(commands)
    _add_evaluate(commands)
    _add_ensemble(commands)
    _add_info(commands)
    return parser


def _command(commands, name: str, run: Callable, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


# demo


def _add_demo(commands) -> None:
    text = "Everything on a generated data set: minutes on two cores, ends with a report page."
    parser = _command(commands, "demo", _demo, text)
    parser.add_argument("--out", help="folder (default: the first free of runs/demo, runs/demo-2)")
    parser.add_argument("--seed", type=int, default=0, help="of the data and the run (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def _demo(arguments) -> None:
    from msclr.demo import run_demo

    with _ProgressBar() as on_step:
        out = arguments.out or _free_folder("runs/demo")
        result = run_demo(out, arguments.seed, say=_say, on_step=on_step)
    if arguments.json:
        _print_json(result)
    else:
        print(result["summary"])


def _free_folder(wanted: str) -> str:
    names = (wanted if i == 1 else f"{wanted}-{i}" for i in itertools.count(1))
    return next(name for name in names if not os.path.exists(name))


# prepare


def _add_prepare(commands) -> None:
    text = "Turn clips into a prepared data set."
    parser = commands.add_parser("prepare", help=text, description=text)
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    arrays = _command(sources, "arrays", _prepare_arrays, "Clips of any convention in one .npz.")
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


# pretrain


def _add_pretrain(commands) -> None:
    text = "Pretrain by a recipe: a shipped name or a YAML file, with key=value overrides."
    parser = _command(commands, "pretrain", _pretrain, text)
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--resume", action="store_true", help="go on from the run's checkpoint")


def _pretrain(arguments) -> None:
    from msclr.config import load_recipe
    from msclr.training import pretrain

    recipe = load_recipe(arguments.recipe, arguments.overrides)
    with _ProgressBar() as on_step:
        folder = pretrain(recipe, arguments.resume, on_step)
    _say(f"run written to {folder}")


class _ProgressBar:
    """Draws a bar on stderr for pretrain: loss, contrast accuracy, clips/s, time left."""

    def __init__(self):
        self._bar = None

    def __enter__(self) -> Callable | None:
        return None if os.environ.get("RANK", "0") != "0" else self._on_step

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()  # so that a message after it begins a line of its own

    def _on_step(self, done: int, steps: int, records) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=steps, initial=done - 1, unit="step", dynamic_ncols=True)
        if records:
            last = records[-1]
            self._bar.set_postfix_str(
                f"loss {last.loss:.3f}, contrast {100 * last.contrast_accuracy:.0f} %, "
                f"{last.clips_per_second:.0f} clips/s",
                refresh=False,
            )
        self._bar.update()


# evaluate, ensemble


def _add_evaluate(commands) -> None:
    text = "Evaluate the frozen encoder of a run."
    parser = _command(commands, "evaluate", _evaluate, text)
    parser.add_argument("protocol", choices=("linear", "knn"))
    parser.add_argument("run_folder", metavar="RUN")
    _add_evaluation_options(parser)


def _add_ensemble(commands) -> None:
    text = "Average linear classifiers over layouts, and add up those of several streams."
    parser = _command(commands, "ensemble", _ensemble, text)
    parser.add_argument("run_folders", metavar="RUN", nargs="+")
    _add_evaluation_options(parser)


def _add_evaluation_options(parser) -> None:
    parser.add_argument("--layout", action="append", help="one or more; default: all of the data")
    parser.add_argument("--data", help="prepared folder; default: the recipe's")
    parser.add_argument("--random", action="store_true", help="a newly initialised encoder instead")
    parser.add_argument("--device", help="cpu, cuda or auto; default: the recipe's")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _evaluate(arguments) -> None:
    from msclr.evaluation import evaluate_knn, evaluate_linear, open_run
    from msclr.evaluation.protocols import data_layouts

    run = open_run(arguments.run_folder, arguments.random, arguments.device)
    evaluate = {"linear": evaluate_linear, "knn": evaluate_knn}[arguments.protocol]
    results = []
    for layout in arguments.layout or data_layouts(run, arguments.data):
        results.append(evaluate(run, layout, arguments.data))
        if not arguments.json:
            print(_line(results[-1]))
    if arguments.json:
        _print_json(results[0] if len(results) == 1 else {**results[0], "results": results})


def _ensemble(arguments) -> None:
    from msclr.evaluation import evaluate_ensemble, open_run

    runs = [open_run(x, arguments.random, arguments.device) for x in arguments.run_folders]
    result = evaluate_ensemble(runs, arguments.layout, arguments.data)
    if arguments.json:
        _print_json(result)
        return
    for member in result["members"]:
        name = f"{member['layout']} ({member['stream']}, {member['run']})"
        print(f"{name}: top-1 {member['top1']:.1f} %, weight {member['weight']:g}")
    print(f"ensemble: top-1 {result['top1']:.1f} %, top-5 {result['top5']:.1f} %")


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


# info


def _add_info(commands) -> None:
    parser = _command(commands, "info", _info, "Versions, devices, backends, layouts, recipes.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _info(arguments) -> None:
    import platform

    import torch

    from msclr import kernels, layouts
    from msclr.config import recipe_names

    facts = {
        "msclr": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "backends": kernels.backends(),
        "layouts": layouts.names(),
        "recipes": recipe_names(),
    }
    if arguments.json:
        _print_json(facts)
        return
    for key, value in facts.items():
        if key == "backends":
            for name, reason in value.items():
                print(f"{'backend ' + name:18}{reason or 'can run here'}")
        else:
            print(f"{key:18}{', '.join(value) if isinstance(value, list) else value}")


def _print_json(value: Any) -> None:
    print(json.dumps(value))


def _say(text: str) -> None:
    print(text, file=sys.stderr)
