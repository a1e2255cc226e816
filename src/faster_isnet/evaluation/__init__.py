"""Measures of accuracy and attention."""

from faster_isnet.evaluation.accuracy import accuracy
from faster_isnet.evaluation.attention import PREDICTION, background_share, mean_background_share
from faster_isnet.evaluation.delong import AUCs, Difference, auc_difference, auc_interval, aucs
from faster_isnet.evaluation.predictions import Predictions, predict
from faster_isnet.evaluation.scores import choose_thresholds, scores

__all__ = [
    "PREDICTION",
    "AUCs",
    "Difference",
    "Predictions",
    "accuracy",
    "auc_difference",
    "auc_interval",
    "aucs",
    "background_share",
    "choose_thresholds",
    "mean_background_share",
    "predict",
    "scores",
]
