"""Classifiers tested on people whose labels they have not seen, among the training people alone.

    python -m benchmarks.accuracy.left_out RUN... --data DATA --subject '_s(\\d+)_' --out FILE

Each training person is left out of the classifier in turn, so that how features are evaluated can
be chosen without a test person. The encoders were trained on clips of all of them, without labels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks import origin
from benchmarks.accuracy.people import people_of
from benchmarks.output import save
from msclr.data.store import open_store
from msclr.evaluation import ensemble_logits, fit_linear, open_run
from msclr.evaluation.metrics import top_k_accuracy
from msclr.evaluation.run import Run
from msclr.evaluation.splits import features_of


def left_out(run: Run, data: str, people: list[str], mirror: bool) -> dict[str, dict[str, float]]:
    """{person: {layout or "ensemble": top-1 in percent}} of classifiers by L-BFGS."""
    layouts = list(open_store(data, verify=False).layouts)
    features = {name: features_of(run, name, data, mirror=mirror) for name in layouts}
    labels, classes = features[layouts[0]].train_labels, len(features[layouts[0]].classes)
    found = {}
    for person in sorted(set(people), key=lambda name: (len(name), name)):  # 2 before 10
        asked = torch.tensor([each == person for each in people])
        fits = {}
        for name, f in features.items():
            split = f.train[~asked], labels[~asked], f.train[asked], labels[asked]
            fits[name] = fit_linear(*split, classes, solver="lbfgs")
        found[person] = {name: fit.top1 for name, fit in fits.items()}
        if len(fits) > 1:
            total = ensemble_logits([fit.logits for fit in fits.values()])
            found[person]["ensemble"] = top_k_accuracy(total, labels[asked], 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--data", required=True, help="prepared folder")
    parser.add_argument("--subject", required=True, help="pattern of a person in a clip's name")
    parser.add_argument("--out", required=True, type=Path, help="the .json file to write")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    people = people_of(open_store(arguments.data).split("train").names, arguments.subject)
    result = {"benchmark": "left_out", "commit": origin.commit(), "encoders": {}}
    for folder in arguments.runs:
        run = open_run(folder)
        result["encoders"][run.folder.name] = {
            name: left_out(run, arguments.data, people, mirror)
            for name, mirror in (("plain", False), ("mirrored", True))
        }
    save(result, arguments.out)


if __name__ == "__main__":
    main()
