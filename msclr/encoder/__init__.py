"""Frozen encoders for any clips: `msclr.load`."""

from msclr.encoder.encoder import Encoder
from msclr.encoder.load import load
from msclr.encoder.routes import ROUTES, Route

__all__ = ["ROUTES", "Encoder", "Route", "load"]
