"""Measurements of msclr. Not installed with the package."""
