"""Read images, labels and masks, check and split them, and make batches of them.

Masks that a segmenter makes come from :mod:`faster_isnet.segmentation`; nothing here knows of
networks or of how they are trained.
"""

from faster_isnet.data.classifier_data import ClassifierData
from faster_isnet.data.coco import from_coco
from faster_isnet.data.dataset import Augmentation, ImageDataset
from faster_isnet.data.dataset_report import Findings, check_samples
from faster_isnet.data.digit_sources import SOURCES
from faster_isnet.data.digits import BIASES, BiasedDigits, BiasedDigitsData
from faster_isnet.data.division import Division, DivisionChanges
from faster_isnet.data.duplicates import group_near_duplicates
from faster_isnet.data.folders import add_mask_folder, from_folders, list_images
from faster_isnet.data.hdf5 import from_hdf5
from faster_isnet.data.image_data import ImageData, ImageSet
from faster_isnet.data.images import read_image
from faster_isnet.data.mask_review import MaskReview
from faster_isnet.data.masks import Boxes, Foreground, MaskFile, Segments, grow, read_mask, shrink
from faster_isnet.data.planting import PlantedDataset, Planting
from faster_isnet.data.sample_tables import from_table
from faster_isnet.data.samples import Sample
from faster_isnet.data.sources import read_samples
from faster_isnet.data.splits import split
from faster_isnet.data.worse_masks import WorseMasks

__all__ = [
    "BIASES",
    "SOURCES",
    "Augmentation",
    "BiasedDigits",
    "BiasedDigitsData",
    "Boxes",
    "ClassifierData",
    "Division",
    "DivisionChanges",
    "Findings",
    "Foreground",
    "ImageData",
    "ImageDataset",
    "ImageSet",
    "MaskFile",
    "MaskReview",
    "PlantedDataset",
    "Planting",
    "Sample",
    "Segments",
    "WorseMasks",
    "add_mask_folder",
    "check_samples",
    "from_coco",
    "from_folders",
    "from_hdf5",
    "from_table",
    "group_near_duplicates",
    "grow",
    "list_images",
    "read_image",
    "read_mask",
    "read_samples",
    "shrink",
    "split",
]
