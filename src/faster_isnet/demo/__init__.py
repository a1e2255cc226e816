"""Show on digits with a planted background bias what a standard classifier and an ISNet learn.

What is of use for other data is not here but in :mod:`faster_isnet.training`,
:mod:`faster_isnet.evaluation` and :mod:`faster_isnet.reporting`.
"""

from faster_isnet.demo.metrics import DemoMetrics, ModelScores
from faster_isnet.demo.run import DemoSettings, run_demo

__all__ = ["DemoMetrics", "DemoSettings", "ModelScores", "run_demo"]
