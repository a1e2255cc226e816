"""Evaluate classifiers: accuracy, attention and what the background changes, with intervals.

Tables and pages of the results are in :mod:`faster_isnet.reporting`; nothing here trains.
"""

from faster_isnet.evaluation.accuracy import accuracy
from faster_isnet.evaluation.attention import (
    PREDICTION,
    attention_scores,
    background_share,
    mean_background_share,
    measure_attention,
    positions,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
    worst,
)
from faster_isnet.evaluation.delong import AUCs, Difference, auc_difference, auc_interval, aucs
from faster_isnet.evaluation.differences import differences
from faster_isnet.evaluation.measures import decisions
from faster_isnet.evaluation.predictions import Predictions, predict
from faster_isnet.evaluation.scores import choose_thresholds, scores
from faster_isnet.evaluation.sensitivity import sensitivity

__all__ = [
    "PREDICTION",
    "AUCs",
    "Difference",
    "Predictions",
    "accuracy",
    "attention_scores",
    "auc_difference",
    "auc_interval",
    "aucs",
    "background_share",
    "choose_thresholds",
    "decisions",
    "differences",
    "mean_background_share",
    "measure_attention",
    "positions",
    "predict",
    "relevance_mass_accuracy",
    "relevance_rank_accuracy",
    "scores",
    "sensitivity",
    "worst",
]
