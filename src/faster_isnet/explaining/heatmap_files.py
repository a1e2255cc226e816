"""Write explanations to files: pictures, arrays of relevance, and a table of both."""

from __future__ import annotations

import csv
import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from faster_isnet.common.checks import check_choice, check_images, check_range
from faster_isnet.common.files import write_atomically
from faster_isnet.common.logits import class_logits
from faster_isnet.common.progress import count_bar
from faster_isnet.common.spreadsheets import safe_cell
from faster_isnet.explaining.explainer import Explainer
from faster_isnet.plotting.heatmaps import class_name, explanation_figure, percent, png
from faster_isnet.plotting.pictures import check_image

log = logging.getLogger(__name__)

FORMATS = ("png", "npy")
TABLE = "explanations.csv"
ExplanationRow = dict[str, str | int | float]
"""A row of the table: its columns by name."""

ALL = "all"
"""What stands for a class where all logits are explained in one heatmap."""
_ALL = -1
ALL_CLASSES = "all-classes"
"""The target of a heatmap of each class."""
_CLASSES_AT_ONCE = 16
# Which class the heatmaps are of, [B, 1], for the quantities that say so.
_CLASSES: dict[str, Callable[[Tensor], Tensor]] = {
    "all-log-probabilities": lambda logits: torch.full((len(logits), 1), _ALL),
    "all-logits": lambda logits: torch.full((len(logits), 1), _ALL),
    "highest-log-odds": lambda logits: logits.argmax(1, keepdim=True),
    "highest-logit": lambda logits: logits.argmax(1, keepdim=True),
    "lowest-eta": lambda logits: logits.argmin(1, keepdim=True),
}
TARGETS = (ALL_CLASSES, *_CLASSES)
"""Quantities that can be explained in files: those that are not drawn at random."""


def write_explanations(
    explainer: Explainer,
    images: Sequence[Path],
    out: str | Path,
    target: int | str | None = None,
    *,
    prepare: Callable[[Path], Tensor],
    class_names: Sequence[str],
    task: str = "multiclass",
    formats: Sequence[str] = FORMATS,
    batch_size: int = 8,
    skip_unreadable: bool = False,
    progress: bool = True,
) -> list[ExplanationRow]:
    """Explain images, and write what comes out.

    For the n-th image and each explained class there is a picture ``n-IMAGE-CLASS.png``, the
    heatmap over the image, and ``n-IMAGE-CLASS.npy``, its relevance in float32, ``[C, H, W]``.
    Files that are there already are replaced, each at once. ``explanations.csv`` lists them all;
    if a later image fails, those before it.

    Parameters
    ----------
    explainer
        Its model has to be in eval mode.
    images
        The images' files.
    out
        The folder, which is made if need be.
    target
        What is explained: ``None`` for the highest logit, a class, or of
        :data:`~faster_isnet.explaining.targets.QUANTITIES` one that is not drawn at random, such as
        ``"all-classes"`` for a heatmap of each.
    prepare
        Returns for a file what the model takes, ``[C, H, W]``. The picture beneath the heatmap is
        made of that too: the explainer's ``input_low`` is black there, ``input_high`` white.
    class_names
        Of all of the model's classes.
    task
        What the logits are: ``"multiclass"`` (softmax) or ``"multilabel"`` (sigmoid).
    formats
        Some of ``"png"`` and ``"npy"``.
    batch_size
        How many images, of one size, are explained at a time; with ``"all-classes"`` for 16 classes
        at a time, all of whose heatmaps are held in memory together.
    skip_unreadable
        Go on without images that ``prepare`` fails on, and log a warning for each.
    progress
        Show a progress bar on stderr, if that is a terminal.

    Returns
    -------
    list
        The table. A row has the ``image`` and the ``class`` (:data:`ALL` if all are explained in
        one), the class's ``probability`` (empty for all), the number of the relevance ``pass``
        (the composite ``"dual"`` has two), the ``quantity`` that was explained and the sum of the
        ``relevance``, and under each format the file's name.

    Raises
    ------
    TypeError
        If the target is neither a number nor a name.
    ValueError
        If there are no images; the model is in training mode; one cannot be read, none can, or
        their sizes differ within a batch; a name is unknown, or there are not as many as logits;
        or pixels to be drawn are not within the explainer's bounds.
    FloatingPointError
        If a heatmap holds NaN or infinite values.
    """
    target = "highest-logit" if target is None else target
    _check(explainer, images, target, task, formats, batch_size)
    folder = Path(out)
    parts = _parts(target, len(class_names))
    rows: list[tuple[str, int, ExplanationRow]] = []
    try:
        with count_bar(len(images) * sum(map(len, parts)), "heatmap", progress) as bar:
            for batch in _batches(images, prepare, batch_size, skip_unreadable):
                for part in parts:
                    for heatmap in _explained(explainer, batch, part, class_names, task):
                        files = _write(folder, heatmap, formats, explainer)
                        place = heatmap.image.number, heatmap.pass_number
                        rows.append((*place, {**heatmap.row(), **files}))
                    bar.update(len(batch) * len(part))
    finally:  # what is written has its row, whatever happens later
        table = [row for *_, row in sorted(rows, key=lambda placed: placed[:2])]
        if table:
            write_atomically(folder / TABLE, _csv(table))
    if not table:
        raise ValueError(f"none of the {len(images)} images can be read; the first is {images[0]}")
    return table


def _parts(target: int | str, classes: int) -> list[range] | list[list[int | str]]:
    """Return what is explained of each image, in parts whose heatmaps fit into memory together."""
    if target != ALL_CLASSES:
        return [[target]]
    return [range(classes)[i : i + _CLASSES_AT_ONCE] for i in range(0, classes, _CLASSES_AT_ONCE)]


@dataclass(frozen=True, eq=False)
class _Image:
    number: str
    path: Path
    pixels: Tensor


@dataclass(frozen=True, eq=False)
class _Heatmap:
    image: _Image
    class_index: int  # or _ALL
    class_name: str
    probability: float  # NaN for _ALL
    pass_number: int
    quantity: float
    relevance: Tensor

    def stem(self) -> str:
        """Return the name of its files: numbers make it unique, words say what it is."""
        parts = [self.image.number, _safe(self.image.path.stem, 100)]
        if self.class_index != _ALL:
            parts.append(str(self.class_index))
        parts.append(_safe(self.class_name, 60))
        if self.pass_number > 1:
            parts.append(f"pass{self.pass_number}")
        return "-".join(parts)

    def title(self) -> str:
        parts = [self.class_name]
        if self.class_index != _ALL:
            parts.append(percent(self.probability))
        if self.pass_number > 1:
            parts.append(f"pass {self.pass_number}")
        return ", ".join(parts)

    def row(self) -> ExplanationRow:
        return {
            "image": str(self.image.path),
            "class": self.class_name,
            "probability": "" if self.class_index == _ALL else self.probability,
            "pass": self.pass_number,
            "quantity": self.quantity,
            "relevance": float(self.relevance.sum(dtype=torch.float64)),
        }


def _check(
    explainer: Explainer,
    images: Sequence[Path],
    target: int | str,
    task: str,
    formats: Sequence[str],
    batch_size: int,
) -> None:
    if not images:
        raise ValueError("there are no images to explain")
    if explainer.model.training:
        raise ValueError(
            "the model is in training mode, where images of a batch change each other's heatmaps; "
            "call model.eval() first"
        )
    if not isinstance(target, int):
        check_choice("target", target, TARGETS)
    check_choice("task", task, ("multiclass", "multilabel"))
    for name in formats:
        check_choice("format", name, FORMATS)
    check_range("batch_size", batch_size, 1)


def _batches(
    images: Sequence[Path],
    prepare: Callable[[Path], Tensor],
    batch_size: int,
    skip_unreadable: bool,
) -> Iterator[list[_Image]]:
    """Yield the images that can be read, each with its number."""
    digits = len(str(len(images)))
    for start in range(0, len(images), batch_size):
        batch: list[_Image] = []
        for number, path in enumerate(images[start : start + batch_size], start + 1):
            try:
                pixels = prepare(path)
                check_images(pixels[None])
            except Exception as error:  # of many types: a file may hold anything
                said = f"{path} cannot be read ({type(error).__name__}: {error})"
                if not skip_unreadable:
                    raise ValueError(
                        f"{said}; mend it, or go on without it: --skip-unreadable"
                    ) from error
                log.warning("%s; it is left out", said)
                continue
            if batch and pixels.shape != batch[0].pixels.shape:
                raise ValueError(
                    f"the images of a batch must have one size, but {path} is "
                    f"{list(pixels.shape)} and {batch[0].path} {list(batch[0].pixels.shape)}; "
                    "resize them, or use a batch size of 1"
                )
            batch.append(_Image(f"{number:0{digits}}", Path(path), pixels))
        if batch:
            yield batch


def _explained(
    explainer: Explainer,
    batch: Sequence[_Image],
    part: range | list[int | str],
    class_names: Sequence[str],
    task: str,
) -> Iterator[_Heatmap]:
    """Explain a batch in one call: one target, or a range of classes; and yield its heatmaps."""
    device = next((p.device for p in explainer.model.parameters()), torch.device("cpu"))
    pixels = torch.stack([image.pixels for image in batch]).to(device)
    target = _logits_of(part, task) if isinstance(part, range) else part[0]
    try:
        explanation = explainer(pixels, target)
    except FloatingPointError as error:
        names = ", ".join(str(image.path) for image in batch)
        raise FloatingPointError(f"of {names}, {error}; take an earlier checkpoint") from error
    logits = class_logits(explanation.logits.cpu().float(), task)
    if len(class_names) != logits.shape[1]:
        raise ValueError(
            f"class_names has {len(class_names)} names ({', '.join(class_names)}), the model has "
            f"{logits.shape[1]} classes"
        )
    probabilities = logits.sigmoid() if task == "multilabel" else logits.softmax(1)
    if isinstance(target, str):
        classes = _CLASSES[target](logits)
    else:
        classes = torch.tensor(part).expand(len(batch), -1)
    for b, image in enumerate(batch):
        for k, relevance in enumerate(explanation.heatmap[b].cpu().float()):
            if not bool(relevance.isfinite().all()):
                raise FloatingPointError(
                    f"the heatmap of {image.path} holds NaN or infinite values; look for logits or "
                    "weights that have grown without bound, and take an earlier checkpoint"
                )
            earlier_passes, which = divmod(k, classes.shape[1])
            index = int(classes[b, which])
            yield _Heatmap(
                image,
                index,
                ALL if index == _ALL else class_name(class_names, index),
                math.nan if index == _ALL else float(probabilities[b, index]),
                1 + earlier_passes,
                float(explanation.quantity[b, k]),
                relevance,
            )


def _logits_of(classes: range, task: str) -> Callable[[Tensor], Tensor]:
    return lambda logits: class_logits(logits, task)[:, classes.start : classes.stop]


def _write(
    folder: Path, heatmap: _Heatmap, formats: Sequence[str], explainer: Explainer
) -> dict[str, str]:
    """Write the files of a heatmap, and return their names."""
    names = {form: f"{heatmap.stem()}.{form}" for form in formats}
    for form, name in names.items():
        content = _npy(heatmap) if form == "npy" else _png(heatmap, explainer)
        write_atomically(folder / name, content)
    return names


def _npy(heatmap: _Heatmap) -> bytes:
    buffer = BytesIO()
    np.save(buffer, heatmap.relevance.numpy())
    return buffer.getvalue()


def _png(heatmap: _Heatmap, explainer: Explainer) -> bytes:
    low, high = (bound[:, None, None] for bound in (explainer.input_low, explainer.input_high))
    picture = (heatmap.image.pixels - low) / (high - low)
    if len(picture) not in (1, 3):
        picture = picture.mean(0, keepdim=True)
    try:
        check_image(picture)
    except ValueError as error:
        raise ValueError(
            f"{heatmap.image.path}, from the explainer's lower to its upper bound, cannot be "
            f"drawn: {error}; give Explainer the bounds of the pixels, input_low and input_high"
        ) from error
    name, title = heatmap.image.path.name, heatmap.title()
    return png(explanation_figure(picture, heatmap.relevance, name=name, title=title))


def _safe(text: str, most: int) -> str:
    """Return what is left of a text as part of a file's name, of so many bytes."""
    return re.sub(r"[^\w.-]+", "_", text).encode()[:most].decode(errors="ignore")


def _csv(rows: Sequence[ExplanationRow]) -> bytes:
    text = StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows({name: safe_cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue().encode()
