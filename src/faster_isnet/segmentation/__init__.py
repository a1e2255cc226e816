"""Train a U-Net on images with masks, and predict masks of other images.

Reading and augmenting of images are in ``data``.
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
