"""Benchmarks of reading, preparing and augmenting data, a topic a module."""
