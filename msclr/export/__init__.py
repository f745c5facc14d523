"""Encoders as files that run without this library."""

from msclr.export.classifier import head_of
from msclr.export.model import ExportModel, Head
from msclr.export.write import Exported, export

__all__ = ["ExportModel", "Exported", "Head", "export", "head_of"]
