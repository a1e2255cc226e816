"""Backbones."""

from faster_isnet.models.backbones import backbone_names, build_backbone, convnet

__all__ = ["backbone_names", "build_backbone", "convnet"]
