"""Benchmarks of reading, preparing and augmenting data, one topic per module."""
