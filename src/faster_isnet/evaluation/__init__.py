"""Measures of accuracy and attention."""

from faster_isnet.evaluation.accuracy import accuracy
from faster_isnet.evaluation.attention import PREDICTION, background_share, mean_background_share

__all__ = ["PREDICTION", "accuracy", "background_share", "mean_background_share"]
