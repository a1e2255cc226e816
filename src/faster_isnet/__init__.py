"""Faster ISNet: classifiers trained so that their decisions do not rest on the background."""

import sys
from importlib.metadata import version

from faster_isnet.common.checks import NO_MASK
from faster_isnet.common.moved_modules import MOVED, MovedModules
from faster_isnet.explaining.explainer import Explainer, Explanation
from faster_isnet.methods.isnet.calibration import Calibration, CutCalibration, calibrate
from faster_isnet.methods.isnet.loss import ISNetLoss, LossParts
from faster_isnet.methods.isnet.network import ISNet
from faster_isnet.models.weight_files import load_published_checkpoint
from faster_isnet.training.lit_isnet import LitISNet

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

sys.meta_path.append(MovedModules(MOVED))
