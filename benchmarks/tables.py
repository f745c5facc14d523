"""Write the tables of the README and of docs/ from the JSON files in benchmarks/results/.

    python -m benchmarks.tables

A table stands between two comments in the page, `<!-- table NAME -->` and `<!-- end -->`; what
stands there is replaced, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{p}.md" for p in ("data", "kernels", "results"))]
Rows = list[list[str]]


def transfer(folder: str) -> Rows:
    """A row an encoder: linear top-1 (best epoch) and 1-NN of each layout, and the ensemble.

    Reads NAME-linear.json, NAME-knn.json and, where there are several layouts, NAME-ensemble.json.
    """
    rows: Rows = []
    for path in sorted((RESULTS / folder).glob("*-linear.json")):
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


def demo() -> Rows:
    """A row a seed and encoder of `msclr demo`."""
    rows: Rows = []
    for path in sorted((RESULTS / "demo").glob("*.json")):
        figures = _read(path)
        names = list(figures["pretrained"])
        rows = rows or [["seed", *(f"{name}: pretrained / random" for name in names), "seconds"]]
        cells = [f"{figures['pretrained'][n]:.1f} / {figures['random'][n]:.1f}" for n in names]
        rows.append([str(figures["seed"]), *cells, f"{figures['seconds']:.0f}"])
    return rows


def graph_conv(name: str) -> Rows:
    """A row a shape: milliseconds, the ratio to the best of PyTorch's forms in the same run, peak
    extra memory over the size of the results, and the rate of operations over that of a large
    matrix product."""
    path = RESULTS / f"graph_conv-{name}.json"
    if not path.exists():
        return [["not yet measured"]]
    result = _read(path)
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


def stgcn(name: str) -> Rows:
    """A row a model, mode and memory order: milliseconds before and after accelerate."""
    path = RESULTS / f"stgcn-{name}.json"
    if not path.exists():
        return [["not yet measured"]]
    head = ["width", "V", "mode", "order", "before, ms (p20 to p80)", "after, ms (p20 to p80)"]
    rows = [[*head, "ratio"]]
    for row in _read(path)["rows"]:
        for order, ratio in row["ratio"].items():
            times = [row["seconds"][f"{order}_{when}"] for when in ("before", "after")]
            cells = [
                f"{1e3 * t['median']:.1f} ({1e3 * t['p20']:.1f} to {1e3 * t['p80']:.1f})"
                for t in times
            ]
            rows.append(
                [str(row["width"]), str(row["V"]), row["mode"], order, *cells, f"{ratio:.2f}x"]
            )
    return rows


_FORMS = ("usual", "lean", "chunked", "usual_compiled", "lean_compiled", "chunked_compiled")


def info_nce(name: str) -> Rows:
    """A row a size: forward and backward; ratios to forms in PyTorch, "—" for one left out."""
    path = RESULTS / f"info_nce-{name}.json"
    if not path.exists():
        return [["not yet measured"]]
    read = _read(path)["rows"]
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


def multi_view(name: str) -> Rows:
    """A row a size and choice of negatives, against matmul and cross-entropy."""
    path = RESULTS / f"multi_view-{name}.json"
    if not path.exists():
        return [["not yet measured"]]
    columns = ["ms", "ratio", "memory, MB", "matmul, MB"]
    rows = [["B", "negatives", *columns, *(f"with backward: {c}" for c in columns)]]
    for row in _read(path)["rows"]:
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


def trials() -> Rows:
    """A row a trial of settings: accuracies at its last evaluation, in their order in the file."""
    path = RESULTS / "trials.json"
    rows = [["recipe", "changes", "steps", "linear", "ensemble", "random: linear", "ensemble"]]
    for trial in _read(path)["trials"]:
        last, random = trial["points"][-1], trial["random"]
        cells = [trial["recipe"], trial["changes"] or "none", str(last["step"])]
        for point in (last, random):
            cells += [" / ".join(f"{x:.1f}" for x in point["linear"]), f"{point['ensemble']:.1f}"]
        rows.append(cells)
    return rows


def toy_supervised() -> Rows:
    path = RESULTS / "toy_supervised.json"
    if not path.exists():
        return [["not yet measured"]]
    result = _read(path)
    return [
        ["layout", "epochs", "seed", "top-1"],
        [result["layout"], str(result["epochs"]), str(result["seed"]), f"{result['top1']:.1f}"],
    ]


def data_read() -> Rows:
    """A row a reader: megabytes of text a second, and how many times more ours reads."""
    path = RESULTS / "data_read-cpu.json"
    if not path.exists():
        return [["not yet measured"]]
    (row,) = _read(path)["rows"]
    rates = row["mb_s"]
    rows = [["reader", "MB/s", "ours over it"]]
    for name in ("ours", "usual", "joint_arrays", "lean", "ours_in_python", "ours_2"):
        rows.append([name, f"{rates[name]:.0f}", f"{rates['ours'] / rates[name]:.1f}x"])
    return rows


def data_prepare() -> Rows:
    path = RESULTS / "data_prepare.json"
    if not path.exists():
        return [["not yet measured"]]
    (row,) = _read(path)["rows"]
    seconds, peak = row["seconds_per_file"], row["peak_bytes"]
    head = ["files", "frames", "processes", "ms a file", "of usual", "of lean", "with imports"]
    cells = [str(row[key]) for key in ("files", "T", "workers")]
    cells += [f"{1e3 * seconds['ours']['median']:.2f}"]
    cells += [f"{row[key]:.1f}x" for key in ("ratio", "ratio_lean", "ratio_first")]
    memory = [f"{1e-6 * peak[tree]:.0f}" for tree in ("few", "all")]
    return [[*head, "peak MB, a quarter of the files", "peak MB"], [*cells, *memory]]


def data_batches(name: str) -> Rows:
    """A row a layout: a triple of views of a batch, and ratios to NumPy and PyTorch."""
    path = RESULTS / f"data_batches-{name}.json"
    if not path.exists():
        return [["not yet measured"]]
    rows = [["layout", "clips", "ms a triple", "of usual", "of lean", "of PyTorch", "GB/s"]]
    for row in _read(path)["rows"]:
        ratios = [f"{row[key]:.1f}x" for key in ("ratio", "ratio_lean", "ratio_torch")]
        milliseconds = f"{1e3 * row['seconds']['ours']['median']:.2f}"
        rows.append([row["layout"], str(row["B"]), milliseconds, *ratios, f"{row['gb_s']:.1f}"])
    return rows


def data_step(name: str) -> Rows:
    path = RESULTS / f"data_step-{name}.json"
    if not path.exists():
        return [["not yet measured"]]
    (row,) = _read(path)["rows"]
    times = [f"{1e3 * row['seconds'][key]['median']:.1f}" for key in ("batch", "step")]
    return [
        ["clips", "precision", "batch, ms", "step with it, ms", "share"],
        [str(row["B"]), row["precision"], *times, f"{100 * row['share']:.2f} %"],
    ]


TABLES: dict[str, Callable[[], Rows]] = {
    "ui_prmd": lambda: transfer("ui_prmd"),
    "utkinect": lambda: transfer("utkinect"),
    "demo": demo,
    "toy_supervised": toy_supervised,
    "trials": trials,
    "graph_conv_cpu": lambda: graph_conv("cpu-float32-plain"),
    "graph_conv_cpu_tuned": lambda: graph_conv("cpu-float32-tuned"),
    "data_read": data_read,
    "data_prepare": data_prepare,
    "data_batches_cpu": lambda: data_batches("cpu-tuned"),
    "data_batches_cuda": lambda: data_batches("cuda-triton"),
    "data_step_cpu": lambda: data_step("cpu-fp32"),
    "info_nce_cpu_compiled": lambda: info_nce("cpu-float32-tuned-compiled"),
    "info_nce_cpu": lambda: info_nce("cpu-float32-tuned"),
    "multi_view_cuda": lambda: multi_view("cuda-bfloat16-triton"),
    "multi_view_cpu": lambda: multi_view("cpu-float32-tuned"),
    "stgcn_cpu": lambda: stgcn("cpu-float32"),
    "stgcn_cuda": lambda: stgcn("cuda-bfloat16"),
}


def render(page: str) -> str:
    """The page with every table made anew."""

    def table(match: re.Match) -> str:
        rows = TABLES[match[1]]()
        lines = [f"| {' | '.join(row)} |" for row in rows]
        lines[1:1] = ["|" + "---|" * len(rows[0])] if rows else []
        return "\n".join([f"<!-- table {match[1]} -->", *lines, "<!-- end -->"])

    return re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", table, page, flags=re.DOTALL)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def _by_layout(path: Path) -> dict[str, dict[str, Any]]:
    result = _read(path)
    return {each["layout"]: each for each in result.get("results", [result])}


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(render(page.read_text()))
