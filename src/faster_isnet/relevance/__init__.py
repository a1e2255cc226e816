"""Compute layer-wise relevance propagation: rules, composites, and the modified backward pass.

What is explained is in :mod:`faster_isnet.explaining`, training in :mod:`faster_isnet.methods`.
"""

from faster_isnet.relevance.activation_checkpointing import intercepting
from faster_isnet.relevance.carriers import Carriers
from faster_isnet.relevance.composites import (
    COMPOSITES,
    LAYER_TYPES,
    Composite,
    FunctionComposite,
    LayerComposite,
    build_composite,
    flex,
)
from faster_isnet.relevance.functions import RelevancePass
from faster_isnet.relevance.hidden import (
    check_layers,
    hidden_outputs,
    running_module,
    shared_statistics,
)
from faster_isnet.relevance.input_rule import INPUT_RULES, InputRule
from faster_isnet.relevance.interception import Interception
from faster_isnet.relevance.layer_rules import Layer
from faster_isnet.relevance.linear_maps import contrast
from faster_isnet.relevance.products import is_softmax
from faster_isnet.relevance.rules import AlphaBeta, Epsilon, Gamma, Rule, ZPlus

__all__ = [
    "COMPOSITES",
    "INPUT_RULES",
    "LAYER_TYPES",
    "AlphaBeta",
    "Carriers",
    "Composite",
    "Epsilon",
    "FunctionComposite",
    "Gamma",
    "InputRule",
    "Interception",
    "Layer",
    "LayerComposite",
    "RelevancePass",
    "Rule",
    "ZPlus",
    "build_composite",
    "check_layers",
    "contrast",
    "flex",
    "hidden_outputs",
    "intercepting",
    "is_softmax",
    "running_module",
    "shared_statistics",
]
