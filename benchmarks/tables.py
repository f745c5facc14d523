"""Write the tables of the README and of docs/ from the JSON files in benchmarks/results/.

    python -m benchmarks.tables

A table lies between two comments in the page, `<!-- table NAME -->` and `<!-- end -->`; what
is there is replaced, and nothing else.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.accuracy import tables as accuracy

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NAMES = ("benchmarks", "data", "embedding", "evaluation", "results")
PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in NAMES)]
Rows = list[list[str]]
Result = dict[str, Any]


def transfer(folder: Path) -> Rows:
    """A row per encoder: linear top-1 (best epoch) and 1-NN of each layout, and the ensemble.

    Reads NAME-linear.json, NAME-knn.json and, where there are several layouts, NAME-ensemble.json.
    """
    rows: Rows = []
    for path in sorted(folder.glob("*-linear.json")):
        name = path.name.removesuffix("-linear.json")
        linear, knn = _by_layout(path), _by_layout(path.with_name(f"{name}-knn.json"))
        layouts = sorted(linear)
        ensemble = path.with_name(f"{name}-ensemble.json")
        if not rows:
            heads = [f"{layout}: linear (best), 1-NN" for layout in layouts]
            rows.append(["encoder", "steps", *heads, *(["ensemble"] if len(layouts) > 1 else [])])
        row = [name.replace("_", " "), str(linear[layouts[0]]["step"])]
        for layout in layouts:
            result = linear[layout]
            row.append(
                f"{result['top1']:.1f} ({result['best_top1']:.1f}), {knn[layout]['top1']:.1f}"
                + ("" if result["seen_in_pretraining"] or name == "random" else " *unseen*")
            )
        if len(layouts) > 1:
            row.append(f"{_read(ensemble)['top1']:.1f}")
        rows.append(row)
    return rows


def lbfgs_decay(result: Result) -> Rows:
    """A row per classifier: mean top-1 of the pretrained encoders / of the random ones."""
    encoders = result["top1"].values()
    first = next(iter(encoders))
    rows = [["classifier", *(f"{x}: pretrained / random" for x in next(iter(first.values())))]]
    for name in first:
        figures = [encoder[name] for encoder in encoders]
        means = [[f"{statistics.fmean(x[key]):.1f}" for x in figures] for key in figures[0]]
        label = name if name == "sgd" else name.replace("lbfgs", "lbfgs, factor")
        rows.append([label, *map(" / ".join, means)])
    return rows


def positions(result: Result) -> Rows:
    """A row per variant of the input: linear top-1 of each layout, and the ensemble."""
    names = {"recipe": "as it is", "channels": "three channels", "fourier": "twelve channels"}
    figures = [x for x in result["runs"]["recipe"]["figures"] if "linear" in x or x == "ensemble"]
    rows = [["input", *figures]]
    for name, label in names.items():
        found = result["runs"][name]["figures"]
        rows.append([label, *(f"{found[figure]:.1f}" for figure in figures)])
    return rows


def routes(folder: Path) -> Rows:
    """A row per encoder and layout: top-1 of linear classifiers and of 1-NN by each route."""
    names = ("derive", "attach", "both", "derive, mirrored")
    rows = [["encoder", "clips", "loss", *(f"{name}: linear, lbfgs, 1-NN" for name in names)]]
    for path in sorted(folder.glob("*.json")):
        result = _read(path)
        of = f"{result['layout']}, {sum(result['clips'].values()):,} of {result['classes']} classes"
        figures = [result["routes"][name] for name in names]
        keys = ("linear", "lbfgs", "1nn")
        cells = [", ".join(f"{each[key]:.1f}" for key in keys) for each in figures]
        rows.append([result["encoder"], of, f"{result['loss']:.2f}", *cells])
    return rows


def demo(folder: Path) -> Rows:
    """A row per seed and encoder of `msclr demo`."""
    rows: Rows = []
    for path in sorted(folder.glob("*.json")):
        figures = _read(path)
        names = list(figures["pretrained"])
        rows = rows or [["seed", *(f"{name}: pretrained / random" for name in names), "seconds"]]
        cells = [f"{figures['pretrained'][n]:.1f} / {figures['random'][n]:.1f}" for n in names]
        rows.append([str(figures["seed"]), *cells, f"{figures['seconds']:.0f}"])
    return rows


def graph_conv(result: Result) -> Rows:
    """A row a shape: milliseconds, the ratio to the best of PyTorch's forms in the same run, peak
    extra memory over the size of the results, and the rate of operations over that of a large
    matrix product."""
    columns = ["ms", "ratio", "memory", "of GEMM"]
    rows = [["N", "V", "C_in to C_out", "T", *columns, *(f"with backward: {c}" for c in columns)]]
    for row in result["rows"]:
        cells = [str(row["N"]), str(row["V"]), f"{row['C_in']} to {row['C_out']}", str(row["T"])]
        for part in (row["forward"], row["forward_backward"]):
            rate = part["gflop_s"] / result["ceilings"]["gemm_gflop_s"]
            cells += [
                f"{1e3 * part['seconds']['ours']['median']:.2f}",
                f"{part['ratio']:.1f}x",
                f"{part['peak_extra_bytes']['ours'] / part['results_bytes']:.2f}",
                f"{100 * rate:.0f} %",
            ]
        rows.append(cells)
    return rows


def stgcn(result: Result) -> Rows:
    """A row per model and mode: milliseconds before and after accelerate, and the ratio of the
    fastest before to the fastest after."""
    read = result["rows"]
    names = sorted(read[0]["seconds"], key=lambda name: "after" in name)  # these come last
    rows = [["width", "V", "mode", *(f"{name}, ms (p20 to p80)" for name in names), "ratio"]]
    for row in read:
        seconds = row["seconds"]
        before, after = (
            min(of["median"] for name, of in seconds.items() if name.endswith("_after") == is_after)
            for is_after in (False, True)
        )
        sizes = [str(row[key]) for key in ("width", "V", "mode")]
        times = [_spread(seconds[name]) for name in names]
        rows.append([*sizes, *times, f"{before / after:.2f}x"])
    return rows


def stgcn_short(result: Result) -> Rows:
    """The same for a reader in a hurry: the faster order before, the faster after."""
    rows = [["width", "mode", "PyTorch, ms", "after `accelerate`, ms", "ratio"]]
    for row in result["rows"]:
        medians = {name: 1e3 * of["median"] for name, of in row["seconds"].items()}
        before = min(ms for name, ms in medians.items() if not name.endswith("_after"))
        after = min(ms for name, ms in medians.items() if name.endswith("_after"))
        times = [f"{before:.0f}", f"{after:.0f}", f"{before / after:.2f}x"]
        rows.append([str(row["width"]), row["mode"], *times])
    return rows


def step(result: Result) -> Rows:
    """A row per pair of layouts and contestant; "—": what torch.compile made cannot be counted."""
    head = ["query and key", "step", "ms (p20 to p80)", "over ours", "memory, MB"]
    rows = [[*head, "operator calls", "read and written, GB"]]
    for row in result["rows"]:
        seconds, memory = row["seconds"], row["peak_extra_bytes"]
        for name in seconds:
            calls, moved = row["operator_calls"][name], row["bytes_moved"][name]
            cells = [f"{row['query']}, {row['key']}", name, _spread(seconds[name])]
            cells += [f"{seconds[name]['median'] / seconds['ours']['median']:.2f}x"]
            cells += [f"{1e-6 * memory[name]:.0f}"]
            rows.append(
                [*cells, *(["—"] * 2 if calls is None else [str(calls), f"{1e-9 * moved:.2f}"])]
            )
    return rows


def step_short(result: Result) -> Rows:
    """A row per pair of layouts: time and memory of the best plain forms over ours."""
    forms = {"padded, as in the papers": "padded", "every layout with its own joints": "exact"}
    rows = [["query and key", *(f"{text}: time, memory" for text in forms)]]
    for row in result["rows"]:
        medians = {name: of["median"] for name, of in row["seconds"].items()}
        cells = [f"{row['query']}, {row['key']}"]
        for form in forms.values():
            best = min((name for name in medians if name.startswith(form)), key=medians.get)
            memory = row["peak_extra_bytes"][best] / row["peak_extra_bytes"]["ours"]
            cells.append(f"{medians[best] / medians['ours']:.1f}x, {memory:.1f}x")
        rows.append(cells)
    return rows


def predict(result: Result) -> Rows:
    """A row per pair of layouts and form: what `predict` counts and makes of it."""
    head = ["query and key", "step", "operator calls", "read and written, GB", "TFLOP"]
    rows = [[*head, "bytes alone, ms", "captured, ms", "eager, ms", "captured over bytes alone"]]
    for row in result["rows"]:
        for name, of in row["steps"].items():
            cells = [f"{row['query']}, {row['key']}", name, str(of["operator_calls"])]
            cells += [f"{1e-9 * of['bytes_moved']:.2f}", f"{1e-12 * of['operations']:.2f}"]
            cells += [f"{1e3 * of[key]:.1f}" for key in ("byte_limit", "captured", "eager")]
            rows.append([*cells, f"{of['captured'] / of['byte_limit']:.1f}x"])
    return rows


_FORMS = ("usual", "lean", "chunked", "usual_compiled", "lean_compiled", "chunked_compiled")


def info_nce(result: Result) -> Rows:
    """A row a size: forward and backward; ratios to forms in PyTorch, "—" for one left out."""
    read = result["rows"]
    others = [f for f in _FORMS if any(f in row["seconds"] for row in read)]
    sizes = ("P", "B", "Q", "D")
    ratios = [f"of {other}" for other in others]
    rows = [["loss", *sizes, "ms", *ratios, "of GEMM", "memory, MB", "usual, MB"]]
    for row in read:
        seconds, memory = row["seconds"], row["peak_extra_bytes"]
        ours = seconds["ours"]["median"]
        rows.append(
            [
                row["loss"],
                *(str(row[size]) for size in sizes),
                f"{1e3 * ours:.2f}",
                *(f"{seconds[f]['median'] / ours:.2f}x" if f in seconds else "—" for f in others),
                f"{100 * row['gemm_share']:.0f} %",
                *(f"{1e-6 * memory[w]:.1f}" if w in memory else "—" for w in ("ours", "usual")),
            ]
        )
    return rows


def multi_view(result: Result) -> Rows:
    """A row a size and choice of negatives, against matmul and cross-entropy."""
    columns = ["ms", "ratio", "memory, MB", "matmul, MB"]
    rows = [["B", "negatives", *columns, *(f"with backward: {c}" for c in columns)]]
    for row in result["rows"]:
        cells = [str(row["B"]), row["negatives"]]
        for part in (row["forward"], row["forward_backward"]):
            memory = part["peak_extra_bytes"]
            cells += [
                f"{1e3 * part['seconds']['ours']['median']:.2f}",
                f"{part['ratio']:.2f}x",
                *(f"{1e-6 * memory[w]:.1f}" if w in memory else "—" for w in ("ours", "matmul")),
            ]
        rows.append(cells)
    return rows


def trials(result: Result) -> Rows:
    """A row a trial of settings: accuracies at its last evaluation, in their order in the file."""
    rows = [["recipe", "changes", "steps", "linear", "ensemble", "random: linear", "ensemble"]]
    for trial in result["trials"]:
        last, random = trial["points"][-1], trial["random"]
        cells = [trial["recipe"], trial["changes"] or "none", str(last["step"])]
        for point in (last, random):
            cells += [" / ".join(f"{x:.1f}" for x in point["linear"]), f"{point['ensemble']:.1f}"]
        rows.append(cells)
    return rows


def toy_supervised(result: Result) -> Rows:
    (row,) = result.get("rows", [result])
    cells = [row["layout"], str(row["epochs"]), str(row["seed"]), f"{row['top1']:.1f}"]
    return [["layout", "epochs", "seed", "top-1"], cells]


def data_read(result: Result) -> Rows:
    """A row a reader: megabytes of text a second, and how many times more ours reads."""
    (row,) = result["rows"]
    rates = row.get("mb_s") or {n: 1 / of["median"] for n, of in row["seconds_per_mb"].items()}
    rows = [["reader", "MB/s", "ours over it"]]
    for name in ("ours", "usual", "joint_arrays", "lean", "ours_in_python", "ours_2"):
        rows.append([name, f"{rates[name]:.0f}", f"{rates['ours'] / rates[name]:.1f}x"])
    return rows


def data_prepare(result: Result) -> Rows:
    (row,) = result["rows"]
    seconds, peak = row["seconds_per_file"], row["peak_bytes"]
    head = ["files", "frames", "processes", "ms a file", "of usual", "of lean", "with imports"]
    cells = [str(row[key]) for key in ("files", "T", "workers")]
    cells += [f"{1e3 * seconds['ours']['median']:.2f}"]
    cells += [_over(seconds, "usual"), _over(seconds, "lean")]
    cells += [f"{seconds['usual']['median'] * row['files'] / row['first_seconds']:.1f}x"]
    memory = [f"{1e-6 * peak[tree]:.0f}" for tree in ("few", "all")]
    return [[*head, "peak MB, a quarter of the files", "peak MB"], [*cells, *memory]]


def data_batches(result: Result) -> Rows:
    """A row per layout: a triple of views of a batch, and ratios to NumPy and PyTorch."""
    rows = [["layout", "clips", "ms a triple", "of usual", "of lean", "of PyTorch", "GB/s"]]
    for row in result["rows"]:
        ratios = [_over(row["seconds"], name) for name in ("usual", "lean", "torch")]
        milliseconds = f"{1e3 * row['seconds']['ours']['median']:.2f}"
        rows.append([row["layout"], str(row["B"]), milliseconds, *ratios, f"{row['gb_s']:.1f}"])
    return rows


def data_step(result: Result) -> Rows:
    (row,) = result["rows"]
    batch, step = (row["seconds"][name]["median"] for name in ("batch", "step"))
    times = [f"{1e3 * batch:.1f}", f"{1e3 * step:.1f}", f"{100 * batch / step:.2f} %"]
    return [
        ["clips", "precision", "batch, ms", "step with it, ms", "share"],
        [str(row["B"]), row["precision"], *times],
    ]


# The comment's name -> what makes the table, and the folder or file in results/ that it is of.
TABLES: dict[str, tuple[Callable[[Any], Rows], str]] = {
    "ui_prmd": (transfer, "ui_prmd"),
    "utkinect": (transfer, "utkinect"),
    "accuracy_ui_prmd": (accuracy.accuracies, "accuracy-ui_prmd.json"),
    "accuracy_ui_prmd_mirrored": (accuracy.mirrored, "accuracy-ui_prmd.json"),
    "accuracy_ui_prmd_short": (accuracy.headline, "accuracy-ui_prmd.json"),
    "accuracy_ui_prmd_differences": (accuracy.differences, "accuracy-ui_prmd.json"),
    "accuracy_ui_prmd_unseen": (accuracy.headline, "accuracy-ui_prmd_unseen.json"),
    "accuracy_ui_prmd_derived": (accuracy.headline, "accuracy-ui_prmd_derived.json"),
    "accuracy_sub_layouts": (accuracy.headline, "accuracy-ui_prmd_sub_layouts.json"),
    "accuracy_sub_layouts_differences": (accuracy.differences, "accuracy-ui_prmd_sub_layouts.json"),
    "accuracy_ui_prmd_unseen_differences": (accuracy.differences, "accuracy-ui_prmd_unseen.json"),
    "accuracy_ui_prmd_derived_differences": (accuracy.differences, "accuracy-ui_prmd_derived.json"),
    "mirror": (accuracy.left_out, "left_out/body.json"),
    "frames": (partial(accuracy.left_out_of, "frame"), "left_out"),
    "derived": (partial(accuracy.left_out_of, "derived"), "left_out_derived"),
    "sub_layouts": (partial(accuracy.left_out_of, "left out"), "left_out_sub_layouts"),
    "mirrored_views": (accuracy.mirrored_views, "mirrored_views.json"),
    "accuracy_toy_differences": (accuracy.differences, "accuracy-toy.json"),
    "accuracy_two_sets_differences": (accuracy.differences, "accuracy-two_sets.json"),
    "accuracy_methods": (accuracy.accuracies, "accuracy-methods.json"),
    "accuracy_methods_differences": (accuracy.differences, "accuracy-methods.json"),
    "lbfgs_decay": (lbfgs_decay, "lbfgs_decay.json"),
    "positions": (positions, "positions.json"),
    "demo": (demo, "demo"),
    "routes": (routes, "routes"),
    "toy_supervised": (toy_supervised, "toy_supervised.json"),
    "trials": (trials, "trials.json"),
    "graph_conv_cpu": (graph_conv, "graph_conv-cpu-float32-plain.json"),
    "graph_conv_cpu_tuned": (graph_conv, "graph_conv-cpu-float32-tuned.json"),
    "data_read": (data_read, "data_read-cpu.json"),
    "data_prepare": (data_prepare, "data_prepare.json"),
    "data_batches_cpu": (data_batches, "data_batches-cpu-tuned.json"),
    "data_batches_cuda": (data_batches, "data_batches-cuda-triton.json"),
    "data_step_cpu": (data_step, "data_step-cpu-fp32.json"),
    "info_nce_cpu_compiled": (info_nce, "info_nce-cpu-float32-tuned-compiled.json"),
    "info_nce_cpu": (info_nce, "info_nce-cpu-float32-tuned.json"),
    "multi_view_cuda": (multi_view, "multi_view-cuda-bfloat16-triton.json"),
    "multi_view_cpu": (multi_view, "multi_view-cpu-float32-tuned.json"),
    "stgcn_cpu": (stgcn, "stgcn-cpu-float32.json"),
    "stgcn_cpu_short": (stgcn_short, "stgcn-cpu-float32.json"),
    "stgcn_cpu_compiled": (stgcn, "stgcn-cpu-float32-compiled.json"),
    "stgcn_cuda": (stgcn, "stgcn-cuda-bfloat16.json"),
    "predict_h100": (predict, "predict-h100-bfloat16.json"),
    "step_cpu": (step, "step-cpu-float32-tuned.json"),
    "step_cpu_short": (step_short, "step-cpu-float32-tuned.json"),
    "step_cpu_compiled": (step, "step-cpu-float32-tuned-compiled.json"),
}


def table(name: str) -> Rows:
    make, of = TABLES[name]
    path = RESULTS / of
    if path.is_dir():
        return make(path)
    return make(_read(path)) if path.exists() else [["not yet measured"]]


def render(page: str) -> str:
    """The page with every table made again."""

    def written(match: re.Match) -> str:
        rows = table(match[1])
        lines = [f"| {' | '.join(row)} |" for row in rows]
        lines[1:1] = ["|" + "---|" * len(rows[0])] if rows else []
        return "\n".join([f"<!-- table {match[1]} -->", *lines, "<!-- end -->"])

    return re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", written, page, flags=re.DOTALL)


def _read(path: Path) -> Result:
    return json.loads(path.read_text())


def _spread(seconds: dict[str, float]) -> str:
    """Milliseconds: the median, and the 20th and 80th percentile."""
    median, p20, p80 = (f"{1e3 * seconds[key]:.1f}" for key in ("median", "p20", "p80"))
    return f"{median} ({p20} to {p80})"


def _over(seconds: dict[str, Any], name: str) -> str:
    """How many times as long as ours a contestant takes."""
    return f"{seconds[name]['median'] / seconds['ours']['median']:.1f}x"


def _by_layout(path: Path) -> dict[str, Result]:
    """The results of a file: of one layout, of several as a list, or as they were kept before."""
    found = _read(path)
    found = found if isinstance(found, list) else found.get("results", [found])
    return {each["layout"]: each for each in found}


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(render(page.read_text()))
