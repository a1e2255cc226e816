"""Say where objects are, by boxes, points or masks that are too large, for those that need it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scipy.ndimage import find_objects, label
from torch import Tensor

from faster_isnet.data import Sample
from faster_isnet.data.masks import Boxes
from faster_isnet.segmentation.shapes import clean, main_components

_ROUNDING = 1.0  # pixels by which a box may exceed its image


class ObjectBox(NamedTuple):
    """Left, top, right and bottom in pixels from the image's top left corner, and whose it is."""

    x0: float
    y0: float
    x1: float
    y1: float
    where: str = "a box"


class ObjectPoint(NamedTuple):
    """Pixels from the image's top left corner; 1 in the foreground, 0 not; and whose it is."""

    x: float
    y: float
    label: int
    where: str = "a point"


class HintedObject(NamedTuple):
    """The box of an object, if it has one, and its points."""

    box: ObjectBox | None
    points: tuple[ObjectPoint, ...]


@dataclass(frozen=True)
class Hint:
    """Say where the objects of an image are.

    Attributes
    ----------
    boxes
        One for each object.
    points
        Those within a box tell of its object. Without boxes all are of one.
    sample
        The image with a mask that is too large, instead of boxes.

    Examples
    --------
    >>> hint = Hint((ObjectBox(1, 0, 3, 2),))
    >>> hint.region((2, 4))
    tensor([[[0., 1., 1., 0.],
             [0., 1., 1., 0.]]])
    """

    boxes: tuple[ObjectBox, ...] = ()
    points: tuple[ObjectPoint, ...] = ()
    sample: Sample | None = None

    def region(self, size: tuple[int, int]) -> Tensor:
        """Return the mask ``[1, H, W]`` in {0, 1} outside of which there is no object.

        Parameters
        ----------
        size
            The image's (H, W).

        Raises
        ------
        ValueError
            If a box exceeds the image, or the mask has another size or cannot be read.
        """
        drawn = None if self.sample is None else self.sample.read_mask(size)
        if drawn is not None:
            return drawn
        for box in self.boxes:
            _check_inside(box.where, box[:4], size)
        return Boxes(
            tuple((box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0) for box in self.boxes)
        ).read_mask(size)

    def objects(self, size: tuple[int, int]) -> list[HintedObject]:
        """Return each object's box and points; of a mask, of the components that matter.

        Raises
        ------
        ValueError
            As :meth:`region`; or if a point is outside of the image or of all boxes, or an object
            has points in the background alone.
        """
        for point in self.points:
            _check_inside(point.where, point[:2], size)
        region = self.region(size) if self.boxes or self.sample else None
        if region is None:
            found = [HintedObject(None, self.points)]
        else:
            boxes = self.boxes or _boxes_of_mask(region)
            for point in self.points:
                if not any(_contains(box, point) for box in boxes):
                    raise ValueError(
                        f"{point.where} has the point {_listed(point[:2])}, which lies in no box "
                        "of its image; correct or delete it (outside of boxes all is background)"
                    )
            found = [
                HintedObject(box, tuple(each for each in self.points if _contains(box, each)))
                for box in boxes
            ]
        for each in found:
            if each.box is None and not any(point.label for point in each.points):
                raise ValueError(
                    f"{each.points[0].where}: all points of its image are background; add one in "
                    "the foreground (label 1), or a box"
                )
        return found


def _check_inside(where: str, numbers: Sequence[float], size: tuple[int, int]) -> None:
    """Check that a box, or a point, lies in an image of a size (H, W)."""
    left, top, *_ = numbers
    *_, right, bottom = numbers
    height, width = size
    if (
        min(left, top) < -_ROUNDING
        or max(right - width, bottom - height) > _ROUNDING
        or min(right, bottom, width - left, height - top) < 0
    ):
        raise ValueError(
            f"{where} has {_listed(numbers)}, outside of its image of {width} x {height} pixels "
            "(width x height); are they pixels of this file, not shares or those of another size?"
        )


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def _contains(box: ObjectBox, point: ObjectPoint) -> bool:
    return box.x0 <= point.x <= box.x1 and box.y0 <= point.y <= box.y1


def _boxes_of_mask(mask: Tensor) -> tuple[ObjectBox, ...]:
    """Return the bounding boxes of the components that make up 95 % of a mask."""
    if not (count := main_components(mask)):
        return ()
    parts, _ = label(clean(mask, count)[0].numpy())
    return tuple(
        ObjectBox(columns.start, rows.start, columns.stop, rows.stop)
        for rows, columns in find_objects(parts)
    )
