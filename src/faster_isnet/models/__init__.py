"""Build classifiers by name, give them a new head, and read their weights from files.

Any other model works as well: how it is explained is in :mod:`faster_isnet.explaining`, how it is
trained in :mod:`faster_isnet.training`.
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
