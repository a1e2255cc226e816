"""Measure what training steps and explanations cost, in time and memory, beside other packages.

How well a classifier predicts is not measured here but in :mod:`faster_isnet.evaluation`.
"""

from faster_isnet.benchmark.run import run_benchmark
from faster_isnet.benchmark.settings import SUITES, BenchmarkSettings

__all__ = ["SUITES", "BenchmarkSettings", "run_benchmark"]
