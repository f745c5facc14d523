"""NTU RGB+D 60 and 120 from their `.skeleton` files."""

from __future__ import annotations

from msclr.data.prepare.ntu.bodies import BodyCounts, BodyRules, choose_bodies
from msclr.data.prepare.ntu.names import ClipName, parse_name, split_of
from msclr.data.prepare.ntu.prepare import prepare_ntu
from msclr.data.prepare.ntu.report import NtuReport

__all__ = [
    "BodyCounts",
    "BodyRules",
    "ClipName",
    "NtuReport",
    "choose_bodies",
    "parse_name",
    "prepare_ntu",
    "split_of",
]
