"""Masks from a segmenter: a U-Net that learns from the masks there are, and draws the others."""

from faster_isnet.segmentation.fitting import fit_segmenter
from faster_isnet.segmentation.prediction import predict_masks
from faster_isnet.segmentation.segmenter import Segmenter, load_segmenter
from faster_isnet.segmentation.settings import SegmenterSettings

__all__ = [
    "Segmenter",
    "SegmenterSettings",
    "fit_segmenter",
    "load_segmenter",
    "predict_masks",
]
