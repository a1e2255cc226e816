"""Draw the masks that training images lack before ``faster-isnet fit`` trains, or leave them out.

An image without a mask contributes its classification alone, and so teaches the network to use its
background.
"""

from __future__ import annotations

import logging
from pathlib import Path

from faster_isnet.common.locks import locked
from faster_isnet.data import ClassifierData, ImageData
from faster_isnet.data.masks import MASK_TABLE
from faster_isnet.data.samples import TRAINING_SPLITS, relative_name
from faster_isnet.segmentation.completion import (
    CONTENT,
    DrawnMasks,
    content_hash,
    draw_missing_masks,
    read_drawn_masks,
)
from faster_isnet.segmentation.settings import SegmenterSettings

log = logging.getLogger(__name__)

OPTION = "--missing_masks"
DRAW, LEAVE_OUT, KEEP = CHOICES = ("draw", "leave_out", "keep")
_LEAST_SHARE, _LEAST_IMAGES = 0.1, 20
_LEAST_DICE = 0.7
_PATIENCE = 7 * 24 * 3600.0  # for another process of the same training, which draws
_SIDES = (64, 128)  # of the segmenter's images; outlines of objects need no more
_LISTED = 5


def complete_masks(data: ClassifierData, choice: str | None, folder: Path, seed: int) -> None:
    """See to the training and validation images that have no mask, and say what is done.

    Parameters
    ----------
    data
        The data, of which some training image has a mask.
    choice
        ``"draw"``: draw them with a segmenter that is trained on the masks there are. Images in
        which it finds no foreground are left out. ``"leave_out"``: leave the images out.
        ``"keep"``: train the classification on them. ``None``: draw, but raise if there are too few
        masks to learn from or the segmenter is not good enough; keep images of data that are no
        :class:`~faster_isnet.data.ImageData`.
    folder
        Where masks are drawn. Those that it has for the same images and masks are used again.
    seed
        Of the segmenter.

    Raises
    ------
    ValueError
        As said above; if masks are to be drawn for other data; if no training image has a mask.
    ImportError
        If segmentation-models-pytorch is not installed and masks are to be drawn.
    """
    masked, total = _counts(data)
    if masked == total:
        return
    share = (
        f"{masked} of {total} training and validation images ({100 * masked / total:.0f} %) have "
        "a mask"
    )
    if choice == KEEP or (choice is None and not isinstance(data, ImageData)):
        log.warning(_KEPT, share)
    elif choice == LEAVE_OUT:
        log.warning("\nOnly %s. The others are left out (%s).\n", share, OPTION)
        data.leave_out_unmasked()
    elif not isinstance(data, ImageData):
        raise ValueError(
            f"masks cannot be drawn for {type(data).__name__}, as {OPTION} draw asks for; choose "
            f"{LEAVE_OUT} or {KEEP}"
        )
    else:
        _draw(data, choice == DRAW, folder, seed, share)


_KEPT = (
    "\nWARNING: only %s.\nThe others train the classification alone, and teach the network to use "
    "the background: with masks for\na fifth of the images, an ISNet used a planted mark as much "
    "as a standard classifier did. Have masks drawn\n(--missing_masks draw), or test without the "
    "bias before you rely on it.\n"
)


def _draw(data: ImageData, demanded: bool, folder: Path, seed: int, share: str) -> None:
    """Draw the masks, or read those that were drawn, and add them to the data."""
    names = {
        relative_name(sample, data.folder): sample.name
        for split in _splits(data)
        for sample in data.datasets[split].samples
    }
    unmasked = {name for split in _splits(data) for name in data.unmasked_images(split)}
    message = f"another process draws masks into {str(folder)!r}; wait for its end"
    with locked(folder, message, patience=_PATIENCE):
        drawn = _drawn_before(data, folder)
        if drawn is None:
            if not demanded:
                _check_enough(data, share)
            log.info(
                "\nOnly %s. The others would teach the network to use the background, so a "
                "segmenter is trained on the masks there are and draws the others (%s).",
                *(share, OPTION),
            )
            drawn = _drawn_now(data, unmasked, folder, seed)
    _log_drawn(drawn, folder)
    if drawn.dice < _LEAST_DICE and not demanded:
        raise ValueError(
            f"the segmenter has Dice {drawn.dice:.3f} on {drawn.held_out} held-out images, below "
            f"{_LEAST_DICE}, so that masks it has drawn for the other images are no masks to "
            f"train with; look at {str(folder)!r}, draw more masks by hand, or decide what to do: "
            f"{_ALTERNATIVES}"
        )
    data.add_masks({names[image]: path for image, path in drawn.files.items()})
    data.leave_out_unmasked()


def _drawn_before(data: ImageData, folder: Path) -> DrawnMasks | None:
    """Return the masks that are there, if they were drawn for what the images and masks are now."""
    if not all((folder / name).is_file() for name in (MASK_TABLE, CONTENT)):
        return None
    drawn = read_drawn_masks(folder)
    now = content_hash([data.unaugmented(name) for name in _splits(data)], data.folder)
    return drawn if drawn.content == now else None


def _drawn_now(data: ImageData, unmasked: set[str], folder: Path, seed: int) -> DrawnMasks:
    sets = [data.unaugmented(name) for name in _splits(data)]
    settings = segmenter_settings(data.size, seed)
    try:
        draw_missing_masks(sets, unmasked, data.folder, folder, settings)
    except ImportError as error:
        raise ImportError(f"{error}; or do without: {_ALTERNATIVES}") from error
    return read_drawn_masks(folder)


def segmenter_settings(size: tuple[int, int], seed: int) -> SegmenterSettings:
    """Return the settings of a segmenter that draws masks for images of a size (H, W)."""
    smallest, largest = _SIDES
    return SegmenterSettings(size=smallest if max(size) <= smallest else largest, seed=seed)


def _check_enough(data: ImageData, share: str) -> None:
    masked, total = _counts(data)
    if masked < max(_LEAST_IMAGES, _LEAST_SHARE * total):
        raise ValueError(
            f"only {share}, too few to draw those of the others by: it takes {_LEAST_IMAGES} "
            f"images and {100 * _LEAST_SHARE:.0f} %; draw some more by hand, or decide what to "
            f"do: {_ALTERNATIVES}"
        )


_ALTERNATIVES = (
    f"{OPTION} {DRAW} (with what there is), {LEAVE_OUT} (images without a mask), or {KEEP} (which "
    "teaches the network to use their background)"
)


def _log_drawn(drawn: DrawnMasks, folder: Path) -> None:
    log.info("The segmenter: Dice %.3f on %d held-out images", drawn.dice, drawn.held_out)
    log.info("%d masks were drawn: %s", len(drawn.files), folder)
    for names, what in (
        (drawn.empty, "images in which it found no foreground are left out"),
        (list(drawn.implausible), "drawn masks are unlike those that it was trained on"),
    ):
        if names:
            more = ", …" if len(names) > _LISTED else ""
            log.warning("%d %s: %s%s", len(names), what, ", ".join(names[:_LISTED]), more)


def _counts(data: ClassifierData) -> tuple[int, int]:
    """Return the numbers of training and validation images that have a mask, and of all."""
    total = sum(len(data.datasets[name].samples) for name in _splits(data))
    return total - sum(len(data.unmasked_images(name)) for name in _splits(data)), total


def _splits(data: ClassifierData) -> list[str]:
    return [name for name in TRAINING_SPLITS if name in data.datasets]
