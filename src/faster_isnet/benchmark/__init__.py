"""What training steps and explanations cost, beside the plain ones and beside other packages."""

from faster_isnet.benchmark.run import run_benchmark
from faster_isnet.benchmark.settings import SUITES, BenchmarkSettings

__all__ = ["SUITES", "BenchmarkSettings", "run_benchmark"]
