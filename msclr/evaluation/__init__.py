"""Evaluation of pretrained encoders."""

from msclr.evaluation.ensemble import STREAM_WEIGHTS, ensemble_logits, evaluate_ensemble
from msclr.evaluation.features import collapse_note, extract_features
from msclr.evaluation.finetune import draw_labelled, evaluate_finetune, evaluate_semi
from msclr.evaluation.knn import knn
from msclr.evaluation.linear import LinearResult, fit_linear
from msclr.evaluation.protocols import evaluate_knn, evaluate_linear
from msclr.evaluation.retrieval import evaluate_retrieval, retrieve
from msclr.evaluation.run import Run, open_run
from msclr.evaluation.splits import features_of
from msclr.evaluation.summary import summarise
from msclr.evaluation.transfer import evaluate_transfer

__all__ = [
    "STREAM_WEIGHTS",
    "LinearResult",
    "Run",
    "collapse_note",
    "draw_labelled",
    "ensemble_logits",
    "evaluate_ensemble",
    "evaluate_finetune",
    "evaluate_knn",
    "evaluate_linear",
    "evaluate_retrieval",
    "evaluate_semi",
    "evaluate_transfer",
    "extract_features",
    "features_of",
    "fit_linear",
    "knn",
    "open_run",
    "retrieve",
    "summarise",
]
