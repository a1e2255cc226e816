"""Build classification networks, replace their heads and load their weights.

Training and explanations are elsewhere.
"""

from faster_isnet.models.backbones import (
    CONVNET,
    CONVNET_BLOCKS,
    backbone_names,
    build_backbone,
    check_backbone,
    convnet,
)
from faster_isnet.models.heads import replace_classifier

__all__ = [
    "CONVNET",
    "CONVNET_BLOCKS",
    "backbone_names",
    "build_backbone",
    "check_backbone",
    "convnet",
    "replace_classifier",
]
