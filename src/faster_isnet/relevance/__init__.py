"""The relevance engine: layer-wise relevance propagation by interception."""

from faster_isnet.relevance.composites import COMPOSITES, Composite, build_composite, flex
from faster_isnet.relevance.functions import RelevancePass
from faster_isnet.relevance.hidden import check_layers, hidden_outputs
from faster_isnet.relevance.input_rule import InputRule
from faster_isnet.relevance.interception import Interception

__all__ = [
    "COMPOSITES",
    "Composite",
    "InputRule",
    "Interception",
    "RelevancePass",
    "build_composite",
    "check_layers",
    "flex",
    "hidden_outputs",
]
