"""Measure time and memory of training steps and explanations.

References are the standard training step, Gradient × Input and other packages.
"""

from faster_isnet.benchmark.run import run_benchmark
from faster_isnet.benchmark.settings import SUITES, BenchmarkSettings

__all__ = ["SUITES", "BenchmarkSettings", "run_benchmark"]
