"""Faster ISNet: classifiers trained so that their decisions do not rest on the background."""

from importlib.metadata import version

from faster_isnet.calibration import Calibration, CutCalibration, calibrate
from faster_isnet.checkpoints import load_published_checkpoint
from faster_isnet.checks import NO_MASK
from faster_isnet.explain import Explainer, Explanation
from faster_isnet.isnet import ISNet
from faster_isnet.lightning_module import LitISNet
from faster_isnet.loss import ISNetLoss, LossParts

__version__ = version("faster-isnet")

__all__ = [
    "NO_MASK",
    "Calibration",
    "CutCalibration",
    "Explainer",
    "Explanation",
    "ISNet",
    "ISNetLoss",
    "LitISNet",
    "LossParts",
    "calibrate",
    "load_published_checkpoint",
]
