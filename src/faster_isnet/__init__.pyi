# What `faster_isnet` offers. Each is imported when it is first used: torch takes seconds.
from . import data, evaluation, explaining, methods, models, relevance, training
from .common.checks import NO_MASK
from .explaining.explainer import Explainer
from .explaining.explanation import Explanation
from .methods.isnet.calibration import Calibration, CutCalibration, calibrate
from .methods.isnet.loss import ISNetLoss, LossParts
from .methods.isnet.network import ISNet
from .models.weight_files import load_published_checkpoint
from .training.lit_isnet import LitISNet

__version__: str

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
    "data",
    "evaluation",
    "explaining",
    "load_published_checkpoint",
    "methods",
    "models",
    "relevance",
    "training",
]
