"""Provide user-defined images to Lightning."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

from faster_isnet.common.checks import check_channels, check_choice, check_range
from faster_isnet.common.resizing import STRETCHED, Resizing
from faster_isnet.data.classifier_data import ClassifierData
from faster_isnet.data.coco import from_coco
from faster_isnet.data.dataset import Augmentation, ImageDataset, Item
from faster_isnet.data.dataset_report import Findings, check_samples
from faster_isnet.data.division import Division
from faster_isnet.data.duplicates import group_near_duplicates
from faster_isnet.data.folders import add_mask_folder
from faster_isnet.data.loaders import balancing_sampler, class_counts, image_loader
from faster_isnet.data.mask_review import MaskReview
from faster_isnet.data.masks import Foreground
from faster_isnet.data.planting import PlantedDataset, Planting
from faster_isnet.data.samples import SPLITS, TRAINING_SPLITS, Sample, relabel
from faster_isnet.data.sources import choose_foreground, read_samples, task_of
from faster_isnet.data.splits import DEFAULT_FRACTIONS, Fold, split
from faster_isnet.data.worse_masks import WorseMasks

log = logging.getLogger(__name__)

ImageSet = ImageDataset | PlantedDataset
_PLANTED_TESTS = {"test-biased": "biased", "test-deceiving": "deceiving"}


class ImageData(ClassifierData):
    """Load, check, split and batch images with labels, and with masks for all or some of them.

    Batches are ``(images, labels, masks)``, see :class:`~faster_isnet.data.dataset.ImageDataset`;
    where the attribute of a sample is known (a column ``attribute`` of a table), or marks are
    planted, ``(images, labels, masks, attributes)``, in which −1 stands for an unknown one.
    All files are read and checked before the first batch, and a report is printed.

    Parameters
    ----------
    source
        A folder of class folders, a table (``.csv``, ``.parquet``) or HDF5; or one of these for
        each split, by its name. See :func:`~faster_isnet.data.sources.read_samples`.
    root
        Folder that relative paths in a table start from. By default the table's folder.
    fields
        Names of a table's columns or HDF5's data sets that differ from the defaults:
        ``{"label": "diagnosis", "group": "patient", "attribute": "scanner"}``.
    masks
        A folder of masks with the structure of the images' (``root``, or the folder of ``source``).
    coco
        A COCO file with masks; see :func:`~faster_isnet.data.coco.from_coco`.
    coco_categories
        Names of the categories that are foreground. By default all.
    class_names, task
        Names of the classes by index, and ``"multiclass"`` or ``"multilabel"``, for example those
        of a trained network. By default they are inferred from the data.
    val_sources, test_sources
        Additional data for validation and for testing, such as another hospital's, by names that
        are not used otherwise; like ``source``, with the same ``fields``. All samples are used.
    size
        Side of the images, or H and W.
    channels
        3: the channel of grey images is repeated. 1: colours are converted to luminance, and
        ``faster-isnet fit`` builds a network that reads one channel.
    mask_foreground
        Values of masks that are foreground, for label maps: ``[1, 3]``. By default 0 is background
        and the one other value foreground; see :func:`~faster_isnet.data.masks.read_mask`.
    mask_threshold
        Number that values of the foreground are above, for masks with intermediate values.
    mask_margin
        Distance by which masks are dilated, in pixels at ``size``; negative to erode masks that
        are too large. Parts that are thinner than twice that vanish then, unless it is all.
    mask_review
        The table of decisions that the review page of ``faster-isnet segment`` saves. Masks that
        are rejected or to be drawn are not used; images whose masks are rejected are left out of
        training and validation. See :class:`~faster_isnet.data.mask_review.MaskReview`.
    augmentation
        Of training images; ``None`` for none.
    planting
        Marks of the classes to plant in the background, to test training with a known bias:
        training and validation images get the marks of their classes, or ``correlation`` of them
        do, and there are three versions of the test images: ``"test"`` without marks,
        ``"test-biased"`` with the marks of their classes, ``"test-deceiving"`` with marks of other
        classes. The attribute of an image with a mark is the mark's class then, and columns
        of attributes are not used. ``None`` for none.
    worse_masks
        Changes that make masks of training and validation images worse on purpose (grown, shrunk,
        shifted, boxes, missing), to test what a method needs of them. Test sets and additional data
        keep theirs, and marks are planted by exact masks. ``None`` for none.
    batch_size
        Batch size of every loader.
    balanced
        Sample training images with replacement so that classes are equally frequent.
    fractions
        Fractions of train, val and test for samples without a split; see
        :func:`~faster_isnet.data.splits.split`.
    fold
        Which part to test on in a cross-validation (``{"number": 0, "of": 5}``), instead of the
        fraction of test; ``None`` for none. ``faster-isnet study`` sets it with ``folds``.
    keep_near_duplicates_together
        Treat nearly identical images as one group, so that they are in one split.
    division
        A file of :meth:`~faster_isnet.data.division.Division.save`, such as a run's
        ``division.json``: the images are divided as recorded there, and what differs from it is
        named in a warning. ``None`` divides them anew.
    new_images
        With ``division``, the split of images that are not in it: ``"train"``, ``"val"`` or
        ``"test"``. Images whose files have changed then keep the split that they had. ``None``
        leaves both out.
    skip_unreadable
        Leave out samples that cannot be read, instead of raising an error.
    allow_duplicates
        Go on although images have the same pixels in different splits, or with different labels.
    cache_gib
        Memory in GiB in which each data set keeps its images and masks as they were read and
        resized, so that later epochs do not read their files again; its loading processes share it.
        An image of 224 × 224 and its mask take 0.8 MB. Those that find no room are read at each
        access; 0 keeps none.
    workers
        Number of processes for each loader. 0 reads in the main process.
    seed
        Seed of the split; ≥ 0. All other randomness comes from torch's global generator.

    Attributes
    ----------
    class_names : list of str
        Names of the classes, by index.
    num_classes : int
        Number of classes.
    attribute_names : list of str
        Names of the attributes, by index: of all data, sorted; with marks, the classes' names.
    task : str
        ``"multiclass"`` or ``"multilabel"``.
    findings : Findings
        The results of the checks.
    datasets : dict of str to ImageDataset
        By the names ``"train"``, ``"val"``, ``"test"`` and those of additional data; each has
        ``samples``. With marks, some are :class:`~faster_isnet.data.PlantedDataset`.

    Raises
    ------
    ValueError
        If a number is out of range. When the data are read: see the functions named above; if
        there are no training data; if the name of additional data is in use or not a file name.
    """

    def __init__(
        self,
        source: str | Path | dict[str, Path],
        root: str | Path | None = None,
        fields: dict[str, str | list[str]] | None = None,
        masks: str | Path | None = None,
        coco: str | Path | None = None,
        coco_categories: list[str] | None = None,
        class_names: list[str] | None = None,
        task: str | None = None,
        val_sources: dict[str, Path] | None = None,
        test_sources: dict[str, Path] | None = None,
        size: int | tuple[int, int] = 224,
        channels: int = 3,
        mask_foreground: list[float] | None = None,
        mask_threshold: float | None = None,
        mask_margin: float = 0.0,
        mask_review: Path | None = None,
        augmentation: Augmentation | None = Augmentation(),  # noqa: B008 (it is frozen)
        planting: Planting | None = None,
        worse_masks: WorseMasks | None = None,
        batch_size: int = 16,
        balanced: bool = False,
        fractions: dict[str, float] | None = None,
        fold: Fold | None = None,
        keep_near_duplicates_together: bool = False,
        division: Path | None = None,
        new_images: str | None = None,
        skip_unreadable: bool = False,
        allow_duplicates: bool = False,
        cache_gib: float = 1.0,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.source = (
            {name: Path(each) for name, each in source.items()}
            if isinstance(source, Mapping)
            else Path(source)
        )
        self.root = None if root is None else Path(root)
        self.fields = fields
        self.masks = masks
        self.coco = coco
        self.coco_categories = coco_categories or []
        self._given_classes_and_task = class_names, task
        self._own_classes: list[str] | None = None  # in the order of the data, if it is another
        self.val_sources = val_sources or {}
        self.test_sources = test_sources or {}
        self.size = (size, size) if isinstance(size, int) else (size[0], size[1])
        for side in self.size:
            check_range("size", side, 1)
        self.channels = check_channels(channels)
        self.foreground = Foreground.of(mask_foreground, mask_threshold)
        self.mask_margin = mask_margin
        self.mask_review = MaskReview({}) if mask_review is None else MaskReview.load(mask_review)
        self.augmentation = augmentation
        self.planting = planting
        self.worse_masks = worse_masks
        self.batch_size = int(check_range("batch_size", batch_size, 1))
        self.balanced = balanced
        self.fractions = fractions or dict(DEFAULT_FRACTIONS)
        self.fold = fold
        self.keep_near_duplicates_together = keep_near_duplicates_together
        self.division = None if division is None else Division.load(division)
        if new_images is not None:
            check_choice("split of new_images", new_images, SPLITS)
            if self.division is None:
                raise ValueError(
                    f"new_images={new_images!r} is about images that a division lacks, but no "
                    "division is given; name a run's division.json: division"
                )
        self.new_images = new_images
        self.skip_unreadable = skip_unreadable
        self.allow_duplicates = allow_duplicates
        self.cache_gib = check_range("cache_gib", cache_gib, 0)
        self.workers = int(check_range("workers", workers, 0))
        self.seed = int(check_range("seed", seed, 0))
        self._masked_only: tuple[str, ...] = ()
        self._resizing = STRETCHED

    def setup(self, stage: str | None = None) -> None:
        """Read, split and check the data, once; ``stage`` is ignored."""
        _ = self.datasets

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, by index."""
        return self._samples_and_classes[1]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @cached_property
    def attribute_names(self) -> list[str]:
        """Names of the attributes, by index; none where no sample has one."""
        if self.planting is not None:
            return list(self.class_names)
        attributes = {sample.attribute for sample in self.findings.samples}
        return sorted(each for each in attributes if each is not None)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of the images."""
        return self.channels, *self.size

    @property
    def task(self) -> str:
        """``"multiclass"`` or ``"multilabel"``."""
        return task_of(self._samples_and_classes[0])

    @cached_property
    def findings(self) -> Findings:
        """Results of checking all data, by data set instead of split; printed once."""
        samples = self._samples_and_classes[0]
        if self.division is None:
            if self.keep_near_duplicates_together:
                samples = group_near_duplicates(samples)
            samples = split(samples, self.fractions, self.seed, self.class_names, self.fold)
        for name, source in (self.val_sources | self.test_sources).items():
            samples = [*samples, *self._read_additional(name, source)]
        if self.division is not None:
            samples = self._divide_as_recorded(self.division, samples)
        samples = self.mask_review.apply(samples)
        self._log_rejected(samples)
        findings = check_samples(
            samples,
            self.class_names,
            self.skip_unreadable,
            self.allow_duplicates,
            self.mask_margin / min(self.size),
        )
        if self.worse_masks is not None:
            findings = findings.with_worse_masks(self.worse_masks, self.folder)
        _print(findings)
        return findings

    def _divide_as_recorded(self, division: Division, samples: list[Sample]) -> list[Sample]:
        division.check_settings(self._division_settings)
        samples, changes = division.apply(samples, self.class_names, self.folder, self.new_images)
        if text := str(changes):
            log.warning("The images are not those that the run was divided with.\n%s", text)
        return samples

    def _log_rejected(self, samples: Sequence[Sample]) -> None:
        for name in self._trained_on:
            members = [sample for sample in samples if sample.split == name]
            if rejected := self.mask_review.rejected(members):
                log.warning(
                    "%d of the %d images of %r are left out, since their masks were rejected, such "
                    "as %r (mask_review)",
                    *(len(rejected), len(members), name, min(rejected)),
                )

    @property
    def _trained_on(self) -> tuple[str, ...]:
        """Names of the data sets that a network is trained on, or chosen by."""
        return (*TRAINING_SPLITS, *self.val_sources)

    def unmasked_images(self, name: str) -> list[str]:
        """Return the names of a data set's images that have no mask with foreground."""
        samples = self.datasets[name].samples
        masked = {sample.name for sample in self.findings.with_foreground(samples)}
        return [sample.name for sample in samples if sample.name not in masked]

    def record_division(self) -> Division:
        """Record which image is in which data set, for the next time that the data are read.

        With a division given, images that only it has are recorded, too.
        """
        now = Division.of(
            self.findings.samples, self.class_names, self.folder, self._division_settings
        )
        return now if self.division is None else self.division.merged(now)

    @property
    def _division_settings(self) -> dict[str, object]:
        names = ("fractions", "seed", "keep_near_duplicates_together")
        fold = None if self.fold is None else asdict(self.fold)
        return {**{name: getattr(self, name) for name in names}, "fold": fold}

    def match_classes(self, class_names: Sequence[str]) -> None:
        """Give the classes the indices that they have in a trained network.

        Parameters
        ----------
        class_names
            Names of the network's classes, by index.

        Raises
        ------
        ValueError
            If the data have other classes.
        """
        samples, own = self._samples_and_classes
        if sorted(own) != sorted(class_names):
            raise ValueError(
                f"the data have the classes {own}, but the network was trained on "
                f"{list(class_names)}; rename the data's classes, leave out or add what differs, "
                "or train a new run on them"
            )
        if own != list(class_names):
            self._own_classes = own
            self._samples_and_classes = relabel(samples, own, class_names), list(class_names)

    @cached_property
    def datasets(self) -> dict[str, ImageSet]:
        """The data sets by name."""
        sets: dict[str, ImageSet] = {
            name: self._dataset(name, self.augmentation if name == "train" else None)
            for name in self.findings.counts
        }
        if self.planting is None or "test" not in sets:
            return sets
        pure = replace(self.planting, correlation=1.0)
        for name, bias in _PLANTED_TESTS.items():
            sets[name] = PlantedDataset(sets["test"], pure, bias, self.num_classes)
        return sets

    def unaugmented(self, name: str) -> ImageSet:
        """Return the data set ``name`` without augmentation."""
        return self._dataset(name, None)

    def add_masks(self, masks: Mapping[str, Path]) -> None:
        """Give masks to training and validation images that have none.

        They are used as they are: ``worse_masks`` does not change them.

        Parameters
        ----------
        masks
            Files of the size of the images, by the images' names (``sample.name``).

        Raises
        ------
        ValueError
            If there is a name that none of these images has, or one that has a mask.
        """
        self.findings = self.findings.with_added_masks(masks)
        self.__dict__.pop("datasets", None)  # they are made anew, with these masks

    def leave_out_unmasked(self) -> None:
        """Leave images without a mask, or without foreground in it, out of training and validation.

        How many are left out is logged when the data sets are used next.
        """
        self._masked_only = self._trained_on
        self.__dict__.pop("datasets", None)  # they are made anew, without these images

    def resize_by(self, resizing: Resizing) -> None:
        """Resize images and masks as a network of others wants it, not by stretching them."""
        self._resizing = resizing
        self.__dict__.pop("datasets", None)  # they are made anew

    def train_dataloader(self) -> DataLoader[Item]:
        """Return the training data, shuffled or, if ``balanced``, sampled with replacement.

        A last batch of a single sample, which batch norm cannot be trained on, is left out.
        """
        train = self._train
        sampler = balancing_sampler(train.samples) if self.balanced else RandomSampler(train)
        processes = 1 if self.trainer is None else self.trainer.world_size
        share = math.ceil(len(train) / processes)
        single = share > self.batch_size and share % self.batch_size == 1
        return image_loader(train, self.batch_size, self.workers, sampler, drop_last=single)

    def val_dataloader(self) -> dict[str, DataLoader[Item]]:
        """Return a loader for each validation data set, by name; the first is ``"val"``."""
        return self._loaders("val", *self.val_sources)

    def test_dataloader(self) -> dict[str, DataLoader[Item]]:
        """Return a loader for each test data set, by name; the first is ``"test"``."""
        return self._loaders("test", *_PLANTED_TESTS, *self.test_sources)

    def class_weights(self) -> Tensor:
        """Compute weights that balance the classes of the training data.

        Returns
        -------
        Tensor
            ``[K]``. Multi-class: N / (K · N_c) for N_c samples in class c, as scikit-learn's
            ``"balanced"``. Multi-label: negatives / positives.
        """
        samples = self._train.samples
        counts = class_counts(samples, self.num_classes)
        if self.task == "multilabel":
            return (len(samples) - counts) / counts
        return len(samples) / (self.num_classes * counts)

    @property
    def _train(self) -> ImageSet:
        if "train" not in self.datasets:
            raise ValueError(
                f"there are no images to train on, only {', '.join(map(repr, self.datasets))}; add "
                "some with the split 'train', or without any"
            )
        return self.datasets["train"]

    @cached_property
    def _samples_and_classes(self) -> tuple[list[Sample], list[str]]:
        samples, class_names = read_samples(
            self.source, self.root, self.fields, *self._given_classes_and_task
        )
        if len(class_names) < 2 and task_of(samples) == "multiclass":
            raise ValueError(
                f"{str(self.source)!r} has {'one class' if class_names else 'no labels'}, "
                f"{class_names}, but a classifier needs two classes; fill in the labels, or add "
                "images of another class"
            )
        if self.masks is not None:
            samples = add_mask_folder(samples, self._image_folder, self.masks)
        if self.coco is not None:
            samples = from_coco(self.coco, samples, self.coco_categories)
        return choose_foreground(samples, self.foreground), class_names

    @property
    def folder(self) -> Path:
        """The folder that recorded names are relative to."""
        sources = self.source.values() if isinstance(self.source, dict) else [self.source]
        folders = [each if each.is_dir() else each.parent for each in map(Path.absolute, sources)]
        return self.root or Path(os.path.commonpath(folders))

    @property
    def _image_folder(self) -> Path:
        if self.root is not None:
            return self.root
        first, *others = self.source.values() if isinstance(self.source, dict) else [self.source]
        if others:
            raise ValueError(
                f"to find images of masks in {str(self.masks)!r} among several sources, give root, "
                "the images' folder"
            )
        return first if first.is_dir() else first.parent

    def _read_additional(self, name: str, source: Path) -> list[Sample]:
        taken = (*SPLITS, *_PLANTED_TESTS)
        if name in taken or (name in self.val_sources and name in self.test_sources):
            raise ValueError(
                f"additional data are called {name!r}, as other data are; give them another name"
            )
        if Path(name).name != name:
            raise ValueError(f"additional data are called {name!r}; give them the name of a file")
        fields = None if Path(source).is_dir() else self.fields
        own = self._own_classes or self.class_names
        samples, _ = read_samples(source, None, fields, own, self.task)
        samples = choose_foreground(relabel(samples, own, self.class_names), self.foreground)
        return [replace(sample, split=name) for sample in samples]

    def _dataset(self, name: str, augmentation: Augmentation | None) -> ImageSet:
        trains = name in TRAINING_SPLITS
        images = ImageDataset(
            self._samples_of(name),
            self.size,
            self.channels,
            self.mask_margin,
            augmentation,
            self.worse_masks if trains else None,
            self.folder,
            # Numbers of columns and of marks would mean different things.
            () if self.planting is not None else self.attribute_names,
            self.findings.added_masks if trains else {},
            self.cache_gib,
            self._resizing,
        )
        if self.planting is None:
            return images
        if self.task == "multilabel":
            raise ValueError("marks need one class per image, but these data are multi-label")
        if not trains:
            return images
        return PlantedDataset(images, self.planting, "biased", self.num_classes)

    def _samples_of(self, name: str) -> list[Sample]:
        samples = self._without_rejected(name)
        if name not in self._masked_only:
            return samples
        masked = self.findings.with_foreground(samples)
        if not masked:
            raise ValueError(
                f"none of the {len(samples)} images of {name!r} has a mask, but this method needs "
                "one for each; name masks (--data.masks), or another method: --method standard"
            )
        if len(masked) < len(samples):
            log.warning(
                "%d of the %d images of %r have no mask, and are left out",
                *(len(samples) - len(masked), len(samples), name),
            )
        return masked

    def _without_rejected(self, name: str) -> list[Sample]:
        samples = self.findings.of_split(name)
        if name not in self._trained_on:
            return samples
        rejected = self.mask_review.rejected(samples)
        return [sample for sample in samples if sample.name not in rejected]

    def _loaders(self, *names: str) -> dict[str, DataLoader[Item]]:
        sets = {name: self.datasets[name] for name in names if name in self.datasets}
        return {name: image_loader(s, self.batch_size, self.workers) for name, s in sets.items()}


@rank_zero_only
def _print(findings: Findings) -> None:
    print(findings)
