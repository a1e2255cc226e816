"""The demo: a standard classifier and an ISNet on digits with a planted background bias.

What is of use for other data is in :mod:`faster_isnet.training`, ``evaluation`` and ``reporting``.
"""

from faster_isnet.demo.run import DemoSettings, run_demo

__all__ = ["DemoSettings", "run_demo"]
