"""Backbones."""

from faster_isnet.models.backbones import (
    CONVNET,
    CONVNET_BLOCKS,
    backbone_names,
    build_backbone,
    convnet,
)

__all__ = ["CONVNET", "CONVNET_BLOCKS", "backbone_names", "build_backbone", "convnet"]
