"""Train a segmenter on the masks there are, and predict masks for other images.

Masks that exist as files are read in :mod:`faster_isnet.data`; classifiers are trained in
:mod:`faster_isnet.training`.
"""

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
