"""Measurements, each a command: `python -m benchmarks.serving`, `python -m benchmarks.overload`.

docs/benchmarks.md says how to read them.
"""
