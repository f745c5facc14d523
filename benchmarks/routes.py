"""How well an encoder's features tell the classes of a layout that it was not trained on, by route.

    python -m benchmarks.routes ENCODER DATA --layout L --out benchmarks/results/routes/NAME.json

ENCODER is what `msclr.load` takes, DATA a prepared data set whose training clips are known to the
nearest neighbours and the linear classifier, and whose other clips are asked. A layout that is
attached is fitted on the clips of both splits, without labels, as by `embed`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

import msclr
from msclr.data import open_store
from msclr.encoder.sources import embed_store
from msclr.evaluation import fit_linear, knn

ROUTES = ("derive", "attach", "both")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoder")
    parser.add_argument("data")
    parser.add_argument("--layout", required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    encoder, store = msclr.load(arguments.encoder), open_store(arguments.data)
    route = encoder.route_of(arguments.layout)
    figures = {name: measure(encoder, store, arguments.layout, name) for name in ROUTES}
    figures["derive, mirrored"] = measure(encoder, store, arguments.layout, "derive", mirror=True)
    result = {
        "encoder": Path(arguments.encoder).stem,
        "data": store.meta["source"],
        "clips": {split: store.meta["splits"][split] for split in ("train", "val")},
        "classes": len(store.classes),
        "frame": store.frame,
        "layout": arguments.layout,
        "passage": route.passage.line,
        "loss": route.passage.loss,
        "auto": route.kind,
        "routes": figures,
        "versions": {"msclr": msclr.__version__, "torch": str(torch.__version__)},
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures))


def measure(
    encoder: msclr.Encoder, store, layout: str, route: str, mirror: bool = False
) -> dict[str, float]:
    """Top-1 in percent of the nearest neighbour, of a linear classifier by the papers' SGD, after
    its last epoch and at its best, and of one by L-BFGS."""
    features, about, _ = embed_store(encoder, store, layout, route, mirror)
    labels, known = torch.tensor(about["labels"]), torch.tensor(about["split"] == "train")
    data = features[known], labels[known], features[~known], labels[~known]
    linear = fit_linear(*data, len(store.classes))
    return {
        "1nn": knn(*data, len(store.classes), [1])[1],
        "linear": linear.top1,
        "best_linear": linear.best_top1,
        "lbfgs": fit_linear(*data, len(store.classes), solver="lbfgs").top1,
    }


if __name__ == "__main__":
    main()
