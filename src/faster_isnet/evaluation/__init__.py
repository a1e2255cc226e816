"""Evaluate any classifier: its scores, its attention, and what the background changes.

What is measured is declared in :mod:`~faster_isnet.evaluation.measures`; results are typed, with
intervals, and saved as JSON. Pages and tables of them are in :mod:`faster_isnet.reporting`.
"""

from faster_isnet.evaluation.accuracy import accuracy
from faster_isnet.evaluation.attention import (
    PREDICTION,
    attention_scores,
    mean_background_share,
    measure_attention,
    positions,
    worst,
)
from faster_isnet.evaluation.delong import AUCs, Difference, auc_difference, auc_interval, aucs
from faster_isnet.evaluation.differences import differences
from faster_isnet.evaluation.intervals import Score
from faster_isnet.evaluation.localisation import (
    background_area,
    background_share,
    relevance_mass_accuracy,
    relevance_rank_accuracy,
)
from faster_isnet.evaluation.measures import MEASURES
from faster_isnet.evaluation.predictions import Predictions, predict
from faster_isnet.evaluation.results import Attention, Differences, Scores, Sensitivity
from faster_isnet.evaluation.scores import scores
from faster_isnet.evaluation.sensitivity import sensitivity
from faster_isnet.evaluation.thresholds import choose_thresholds, decisions

__all__ = [
    "MEASURES",
    "PREDICTION",
    "AUCs",
    "Attention",
    "Difference",
    "Differences",
    "Predictions",
    "Score",
    "Scores",
    "Sensitivity",
    "accuracy",
    "attention_scores",
    "auc_difference",
    "auc_interval",
    "aucs",
    "background_area",
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
