"""Timings of dlc against the libraries it competes with: ``python -m benchmarks``."""
