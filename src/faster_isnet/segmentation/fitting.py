"""Train a segmenter on images and their masks, and evaluate it on held-out images."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors

from faster_isnet.common.environment import machine
from faster_isnet.common.files import write_atomically
from faster_isnet.common.progress import progress_bar
from faster_isnet.common.spreadsheets import safe_csv
from faster_isnet.data.dataset import fit_image, fit_mask
from faster_isnet.data.masks import EITHER_OF_TWO, Foreground, MaskFile
from faster_isnet.data.samples import Sample
from faster_isnet.data.splits import split
from faster_isnet.models.unet import CHANNELS, build_unet, mask_logits, segmentation_loss, smp
from faster_isnet.segmentation.settings import SegmenterSettings
from faster_isnet.segmentation.shapes import Shape, ShapeRanges, clean
from faster_isnet.segmentation.trained_segmenter import TrainedSegmenter, save_segmenter

log = logging.getLogger(__name__)

HELD_OUT_TABLE = "held_out.csv"
_DEFAULTS = SegmenterSettings()
Pair = tuple[Tensor, Tensor]


def fit_segmenter(
    pairs: Sequence[tuple[Path, Path]],
    out: str | Path,
    settings: SegmenterSettings = _DEFAULTS,
    groups: Sequence[str | None] | None = None,
    foreground: Foreground = EITHER_OF_TWO,
) -> dict[str, Any]:
    """Train a segmenter, evaluate it on held-out images, and write it to files.

    Held-out images are not used for model selection: the segmenter is that of the last epoch. All
    files are read before training; a resized image and its mask take 16 bytes per pixel.

    Parameters
    ----------
    pairs
        Files of images and of their masks, of the same size. A mask without foreground is
        valid: there is nothing to segment.
    out
        The folder for ``segmenter.safetensors`` and ``segmenter.json``, which
        :func:`~faster_isnet.segmentation.load_segmenter` reads, and ``held_out.csv``.
    settings
        Settings of the segmenter and its training.
    groups
        Group of each pair, such as a patient, to keep together; ``None`` for a separate group.
    foreground
        Which values of the masks are foreground, see :func:`~faster_isnet.data.read_mask`.

    Returns
    -------
    dict
        The content of ``segmenter.json``: the ``network``'s class, the ``settings``, the ranges
        ``seen`` in the training masks, ``dice`` and ``iou`` (means over the held-out images, of
        masks at original size as :meth:`TrainedSegmenter.mask` returns them), ``held_out`` (the
        same for each image), the number ``trained_on`` of training images, ``seconds``,
        ``machine``.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file cannot be read, an image and its mask differ in size, an image occurs twice,
        there are too few images to hold some out, or no training mask has foreground. The message
        contains the file. Nothing is written then.
    FloatingPointError
        If the loss is not finite.
    ImportError
        If segmentation-models-pytorch is not installed.
    """
    return fit_segmenter_to_samples(
        _samples_of_pairs(pairs, groups, foreground), read_pair, out, settings
    )


def fit_segmenter_to_samples(
    samples: Sequence[Sample],
    read: Callable[[Sample], Pair],
    out: str | Path,
    settings: SegmenterSettings = _DEFAULTS,
) -> dict[str, Any]:
    """Train a segmenter as :func:`fit_segmenter` does, on samples that are read in any way.

    Parameters
    ----------
    samples
        Those that have masks.
    read
        Reads a sample's image ``[C, H, W]`` in [0, 1] and mask ``[1, H, W]`` in {0, 1}.
    out, settings
        See :func:`fit_segmenter`.
    """
    started = time.perf_counter()
    trained_on, held_out = _split_held_out(samples, settings)
    for sample in held_out:
        read(sample)  # so that unreadable files raise before training
    with isolate_rng():
        torch.manual_seed(settings.seed)
        network = build_unet(settings.encoder, settings.encoder_weights)
        dataset = _TrainingPairs(map(read, trained_on), settings)
        log.info("Training on %d images, %d are held out", len(trained_on), len(held_out))
        _train(network, dataset, settings)
    segmenter = TrainedSegmenter(network.eval(), settings, dataset.seen)
    scores = pd.DataFrame([_scores(segmenter, sample, *read(sample)) for sample in held_out])
    out = Path(out)
    write_atomically(out / HELD_OUT_TABLE, safe_csv(scores))
    results = {
        "dice": float(scores["dice"].mean()),
        "iou": float(scores["iou"].mean()),
        "held_out": scores.to_dict("records"),
        "trained_on": len(trained_on),
        "seconds": round(time.perf_counter() - started, 1),
        "machine": {**machine(), "segmentation-models-pytorch": smp().__version__},
    }
    return save_segmenter(segmenter, out, results)


class _TrainingPairs(Dataset[Pair]):
    """Provide images ``[3, S, S]`` in [0, 1] and masks ``[1, S, S]`` in {0, 1}, augmented.

    ``seen`` has the ranges of the masks' shapes, before they are resized.
    """

    def __init__(self, pairs: Iterable[Pair], settings: SegmenterSettings) -> None:
        size = (settings.size, settings.size)
        self._augment = settings.augmentation.build()
        self._pairs: list[Pair] = []
        shapes = []
        for image, mask in pairs:
            shapes.append(Shape.of(clean(mask, settings.components)))
            small_image = fit_image(image, size, CHANNELS).contiguous()
            self._pairs.append((small_image, fit_mask(mask, size)))
        self.seen = ShapeRanges.of(shapes)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Pair:
        image, mask = self._pairs[index]
        image, mask = self._augment(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return image.as_subclass(Tensor).clamp(0, 1), mask.as_subclass(Tensor)


class _LitSegmenter(lightning.LightningModule):
    """Minimise Dice loss and binary cross-entropy by AdamW with a cosine schedule to 0."""

    def __init__(self, network: nn.Module, learning_rate: float) -> None:
        super().__init__()
        self.network = network
        self.learning_rate = learning_rate

    def training_step(self, batch: Pair, batch_idx: int) -> Tensor:
        images, masks = batch
        loss = segmentation_loss(mask_logits(self.network, images), masks)
        self.log("loss", loss, prog_bar=True)
        return loss

    def on_train_epoch_end(self) -> None:
        if not bool(self.trainer.callback_metrics["loss"].isfinite()):
            raise FloatingPointError(
                f"the loss is not finite after epoch {self.current_epoch + 1}; give a learning "
                f"rate below {self.learning_rate:g}"
            )

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.network.parameters(), self.learning_rate)
        steps = int(self.trainer.estimated_stepping_batches)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}


def _train(network: nn.Module, dataset: _TrainingPairs, settings: SegmenterSettings) -> None:
    loader = DataLoader(
        dataset,
        settings.batch_size,
        shuffle=True,
        drop_last=len(dataset)
        > settings.batch_size,  # equal batch sizes, if there are several steps
    )
    trainer = lightning.Trainer(
        max_epochs=settings.epochs,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[progress_bar()],
    )
    with warnings.catch_warnings():
        # The images are in memory, so workers would only copy them.
        warnings.filterwarnings("ignore", ".*does not have many workers")
        trainer.fit(_LitSegmenter(network, settings.learning_rate), loader)


def _samples_of_pairs(
    pairs: Sequence[tuple[Path, Path]],
    groups: Sequence[str | None] | None,
    foreground: Foreground,
) -> list[Sample]:
    groups = [None] * len(pairs) if groups is None else groups
    if len(groups) != len(pairs):
        raise ValueError(f"groups must be one for each of {len(pairs)} pairs, got {len(groups)}")
    samples: dict[Path, Sample] = {}
    for (image, mask), group in zip(pairs, groups, strict=True):
        path = Path(image).resolve()
        if path in samples:
            raise ValueError(f"{str(image)!r} occurs twice; give each image one mask")
        samples[path] = Sample(Path(image), mask=MaskFile(Path(mask), foreground), group=group)
    return list(samples.values())


def _split_held_out(
    samples: Sequence[Sample], settings: SegmenterSettings
) -> tuple[list[Sample], list[Sample]]:
    """Split the samples into those for training and those held out."""
    fractions = {"train": 1 - settings.held_out, "test": settings.held_out}
    parts: dict[str | None, list[Sample]] = {"train": [], "test": []}
    anew = [replace(sample, split=None) for sample in samples]
    for sample in split(anew, fractions, settings.seed):
        parts[sample.split].append(sample)
    if not all(parts.values()):
        raise ValueError(
            f"{len(samples)} images with masks in one group or none: some must be held out; draw "
            "masks for images of two groups at least"
        )
    return parts["train"], parts["test"]


def read_pair(sample: Sample) -> Pair:
    """Read the image ``[C, H, W]`` and the mask ``[1, H, W]`` of a sample that has one."""
    image = sample.read_image()
    mask = sample.read_mask((image.shape[1], image.shape[2]))
    assert mask is not None  # every pair has one
    return image, mask


def _scores(
    segmenter: TrainedSegmenter, sample: Sample, image: Tensor, mask: Tensor
) -> dict[str, str | float]:
    metrics = smp().metrics
    counts = metrics.get_stats(segmenter.mask(image)[None].long(), mask[None].long(), mode="binary")
    return {
        "image": sample.name,
        "mask": str(sample.mask),
        # Both are 1 if true and predicted mask are empty.
        "dice": float(metrics.f1_score(*counts)),
        "iou": float(metrics.iou_score(*counts)),
    }
