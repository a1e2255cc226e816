"""Hold what several methods say of where a classifier looks, and whether they agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean

from faster_isnet.common.checks import check_choice
from faster_isnet.common.files import write_atomically

LRP, GRAD_CAM, INTEGRATED_GRADIENTS = "lrp", "grad-cam", "integrated-gradients"
OTHER_METHODS = (GRAD_CAM, INTEGRATED_GRADIENTS)
"""The methods that can be asked beside LRP."""
MORE, LESS, AS_MUCH = "more", "less", "as much"
AGREE, DISAGREE, OPEN, UNKNOWN = "agree", "disagree", "open", "unknown"
TOLERANCE = 0.05
"""A share this near to the area is as much as the area: coarse maps cannot be told from it."""


def check_methods(methods: Sequence[str]) -> None:
    """Raise ``ValueError`` if a method is unknown, or named twice."""
    for name in methods:
        check_choice("second_opinion", name, OTHER_METHODS)
        if methods.count(name) > 1:
            raise ValueError(f"second_opinion names {name!r} twice; name each method once")


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """Describe where in one image a method sees what speaks for the prediction.

    Attributes
    ----------
    method
        :data:`LRP`, or one of :data:`OTHER_METHODS`.
    background_share
        The part of the positive attributions that lies in the background, in [0, 1]; ``None``
        without a heatmap, a mask, or anything positive.
    layer
        Of Grad-CAM: the layer whose maps are drawn.
    why_not
        Why there is no heatmap; ``None`` if there is one.
    """

    method: str
    background_share: float | None
    layer: str | None = None
    why_not: str | None = None


@dataclass(frozen=True, kw_only=True)
class DrawnOpinion(Opinion):
    """Hold the PNG of the heatmap as well; ``None`` if there is none, or it is drawn already."""

    png: bytes | None = None

    def save(self, folder: Path, picture: str) -> SavedOpinion:
        """Write the heatmap beside the picture of the image, and return the description.

        Parameters
        ----------
        folder
            Of the results.
        picture
            Name of the picture's file in it, without its suffix, which the heatmap's begins with.
        """
        file = f"{picture}-{self.method}.png"
        if self.png is not None:
            write_atomically(folder / file, self.png)
        described = {each.name: getattr(self, each.name) for each in fields(Opinion)}
        return SavedOpinion(file=None if self.png is None else file, **described)


@dataclass(frozen=True, kw_only=True)
class SavedOpinion(Opinion):
    """Name the file of the heatmap, relative to the results' folder; ``None`` as there."""

    file: str | None = None


@dataclass(frozen=True)
class PicturedImage:
    """An image that is shown, as far as opinions of it are compared.

    Attributes
    ----------
    name
        Of the image.
    background_area
        The part of the image that is background; ``None`` without a mask.
    opinions
        One of each method.
    """

    name: str
    background_area: float | None
    opinions: Sequence[Opinion]


@dataclass(frozen=True)
class MethodMean:
    """Hold what one method says of all the images that are shown.

    Attributes
    ----------
    method
        As in :class:`Opinion`.
    images
        How many have a share.
    share, area
        Means over these: of :attr:`Opinion.background_share`, and of the background's area.
        ``None`` if there are no such images.
    compared
        Whether the share is ``"more"`` than the area, ``"less"``, or ``"as much"``, which is within
        :data:`TOLERANCE` of it; ``None`` without a share.
    layers, why_not
        Those of :class:`Opinion`, each once.
    """

    method: str
    images: int
    share: float | None
    area: float | None
    compared: str | None
    layers: list[str]
    why_not: list[str]


@dataclass(frozen=True)
class Agreement:
    """Say whether methods agree on where a classifier looks, over the images that are shown.

    Attributes
    ----------
    images
        How many are shown that have a mask.
    methods
        What each method says.
    result
        ``"agree"`` if all have more of their attributions in the background than its area, or all
        less, or all as much; ``"disagree"`` if one has more and another less; ``"open"`` if one has
        as much and another not; ``"unknown"`` if fewer than two have a share.
    images_apart
        The images of which one method has more in the background and another less.
    """

    images: int
    methods: list[MethodMean]
    result: str
    images_apart: list[str]


def agreement(pictures: Iterable[PicturedImage]) -> Agreement | None:
    """Compare what methods say of some images; ``None`` if no other than LRP was asked.

    Examples
    --------
    >>> lrp, other = (Opinion(method=m, background_share=s) for m, s in ((LRP, 0.2), (GRAD_CAM, 1)))
    >>> agreement([PicturedImage("a.png", 0.6, [lrp, other])]).result
    'disagree'
    """
    shown = [each for each in pictures if each.opinions]
    if not shown:
        return None
    names = dict.fromkeys(each.method for picture in shown for each in picture.opinions)
    means = [_mean(name, shown) for name in names]
    return Agreement(
        sum(picture.background_area is not None for picture in shown),
        means,
        _result([mean.compared for mean in means]),
        [picture.name for picture in shown if _result(_compared_each(picture)) == DISAGREE],
    )


def _mean(method: str, pictures: Sequence[PicturedImage]) -> MethodMean:
    own = [(p.background_area, o) for p in pictures for o in p.opinions if o.method == method]
    pairs = [
        (opinion.background_share, area)
        for area, opinion in own
        if opinion.background_share is not None and area is not None
    ]
    share = fmean(each for each, _ in pairs) if pairs else None
    area = fmean(each for _, each in pairs) if pairs else None
    return MethodMean(
        method,
        len(pairs),
        share,
        area,
        _compared(share, area),
        list(dict.fromkeys(o.layer for _, o in own if o.layer is not None)),
        list(dict.fromkeys(o.why_not for _, o in own if o.why_not is not None)),
    )


def _compared(share: float | None, area: float | None) -> str | None:
    if share is None or area is None:
        return None
    if abs(share - area) <= TOLERANCE:
        return AS_MUCH
    return MORE if share > area else LESS


def _compared_each(picture: PicturedImage) -> list[str | None]:
    return [_compared(each.background_share, picture.background_area) for each in picture.opinions]


def _result(compared: Sequence[str | None]) -> str:
    known = [each for each in compared if each is not None]
    if len(known) < 2:
        return UNKNOWN
    if {MORE, LESS} <= set(known):
        return DISAGREE
    return AGREE if len(set(known)) == 1 else OPEN
