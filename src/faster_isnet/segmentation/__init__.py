"""Predict masks of images, with a segmenter trained on the masks there are or by others.

Masks that exist as files are read in :mod:`faster_isnet.data`; classifiers are trained in
:mod:`faster_isnet.training`.
"""

from faster_isnet.segmentation.agreement import compare_masks
from faster_isnet.segmentation.fitting import fit_segmenter
from faster_isnet.segmentation.grabcut import grabcut
from faster_isnet.segmentation.hint_files import read_hints
from faster_isnet.segmentation.hints import Hint, ObjectBox, ObjectPoint
from faster_isnet.segmentation.prediction import predict_masks
from faster_isnet.segmentation.pretrained import hinted_segmenter, pretrained_segmenter
from faster_isnet.segmentation.segmenter import HintedSegmenter, Segmenter
from faster_isnet.segmentation.settings import SegmenterSettings
from faster_isnet.segmentation.trained_segmenter import TrainedSegmenter, load_segmenter

__all__ = [
    "Hint",
    "HintedSegmenter",
    "ObjectBox",
    "ObjectPoint",
    "Segmenter",
    "SegmenterSettings",
    "TrainedSegmenter",
    "compare_masks",
    "fit_segmenter",
    "grabcut",
    "hinted_segmenter",
    "load_segmenter",
    "predict_masks",
    "pretrained_segmenter",
    "read_hints",
]
