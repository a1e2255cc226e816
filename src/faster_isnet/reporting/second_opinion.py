"""Say in words and in a table whether other methods than LRP see the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from faster_isnet.evaluation.opinions import (
    AGREE,
    AS_MUCH,
    DISAGREE,
    GRAD_CAM,
    INTEGRATED_GRADIENTS,
    LESS,
    LRP,
    MORE,
    OPEN,
    TOLERANCE,
    Agreement,
    MethodMean,
    SavedOpinion,
)
from faster_isnet.evaluation.second_opinion import STEPS
from faster_isnet.plotting.heatmaps import percent
from faster_isnet.reporting.pages import data_uri
from faster_isnet.reporting.result_tables import MISSING, Cell, Column, Row, Table

METHOD_NAMES = {LRP: "LRP", GRAD_CAM: "Grad-CAM", INTEGRATED_GRADIENTS: "Integrated gradients"}
MEASURED = (
    "The images shown, explained by other methods as well (by captum). What is measured here: of "
    "the positive attributions of a heatmap, summed over channels, which are what speaks for the "
    "prediction, the part outside of the mask; elsewhere on this page it is of LRP's absolute "
    "relevance, positive and negative. All methods explain the same class, that of LRP's heatmap. "
    "A heatmap that is the same everywhere has as much in the background as that has of the area. "
    "The images were chosen, and are few: the means are of them, not of all."
)
NO_PROOF = (
    "None of these methods is proof, and neither is their agreement: they may miss the same thing. "
    "LRP depends on its rules. Grad-CAM is as coarse as the layer that it is of, whose values may "
    "be of a larger part of the image than where they are drawn. Integrated gradients depend on "
    f"where they begin, here ({STEPS} steps) at a black image, all pixels 0 before they are "
    "normalised: a black pixel has none by construction, so a black background looks as if it were "
    "not read. What predictions do when the background changes says more than any heatmap."
)
_VERBS = {
    MORE: "more in the background than its area",
    AS_MUCH: f"as much as its area (within {100 * TOLERANCE:g} percentage points)",
    LESS: "less in the background than its area",
}


@dataclass(frozen=True)
class ShownOpinion:
    """A method's heatmap of an image as a ``data:`` URI, if it is to be shown, and its caption."""

    method: str
    caption: str
    uri: str | None


@dataclass(frozen=True)
class ShownSecondOpinion:
    """What a page says of the methods' agreement."""

    table: Table
    sentences: list[str]
    measured: str = MEASURED
    no_proof: str = NO_PROOF


def shown_opinions(
    opinions: Sequence[SavedOpinion], read: Callable[[str], bytes]
) -> list[ShownOpinion]:
    """Return what a page shows of an image; ``read`` returns the content of a file."""
    return [
        ShownOpinion(
            METHOD_NAMES[each.method],
            _caption(each),
            None if each.file is None else data_uri(read(each.file)),
        )
        for each in opinions
    ]


def shown_second_opinion(found: Mapping[str, Agreement]) -> ShownSecondOpinion | None:
    """Return what a page says of one or more groups of images, by their names; ``None`` if none."""
    if not found:
        return None
    only = len(found) == 1
    said = [
        sentence if only else f"{name}: {sentence}"
        for name, each in found.items()
        for sentence in sentences(each)
    ]
    return ShownSecondOpinion(_table(found), said)


def sentences(found: Agreement, *, named: bool = True) -> list[str]:
    """Say whether the methods agree, where they do not, and what could not be given.

    Parameters
    ----------
    found
        What was compared.
    named
        Whether images are named; not where the names are to be read by others.
    """
    said = [_verdict(found)]
    shares = [each.share for each in found.methods if each.share is not None]
    if len(shares) > 1:
        said.append(f"Their means are up to {_points(max(shares) - min(shares))} points apart.")
    if found.images_apart:
        names = f": {', '.join(found.images_apart)}" if named else ""
        said.append(
            f"On {len(found.images_apart)} of {found.images} images one method has more in the "
            f"background than its area and another less{names}."
        )
    for each in found.methods:
        name = METHOD_NAMES[each.method]
        if each.layers:
            said.append(f"{name} is of the layer {', '.join(each.layers)}.")
        if not each.why_not and each.images < found.images:
            without = found.images - each.images
            said.append(f"{name} has nothing positive on {without} of {found.images} images.")
        said += [f"{name} could not be given: {why_not}." for why_not in each.why_not]
    return said


def _verdict(found: Agreement) -> str:
    sides = "; ".join(
        f"{_listed(names)}: {_VERBS[side]}"
        for side in (MORE, AS_MUCH, LESS)
        if (names := [METHOD_NAMES[m.method] for m in found.methods if m.compared == side])
    )
    if found.result == AGREE:
        return f"On the mean the methods agree. {sides}."
    if found.result == DISAGREE:
        return (
            f"On the mean the methods disagree. {sides}. So heatmaps cannot tell where this "
            "classifier looks."
        )
    if found.result == OPEN:
        return f"On the mean no method contradicts another, but they are not all alike. {sides}."
    return (
        "There is nothing to compare: fewer than two methods have positive attributions on images "
        f"with a mask.{f' {sides}.' if sides else ''}"
    )


def _caption(opinion: SavedOpinion) -> str:
    if opinion.why_not is not None:
        return f"not given: {opinion.why_not}"
    if opinion.background_share is None:
        return "no share: nothing positive, or no mask"
    return f"{percent(opinion.background_share)} of what is positive in the background"


def _table(found: Mapping[str, Agreement]) -> Table:
    columns = [
        *(Column("Images"), Column("Method")),
        Column("Attributions in the background", "share of the positive ones, mean over images"),
        Column("Area of the background", "of the same images"),
        Column("Share minus area", "in percentage points"),
        Column("Compared", f"as much: within {100 * TOLERANCE:g} percentage points"),
        Column("Number of images", "with a mask and positive attributions"),
    ]
    rows = [
        Row([Cell(name), *_cells(mean)]) for name, each in found.items() for mean in each.methods
    ]
    return Table("Where the methods see what speaks for the prediction", columns, rows)


def _cells(mean: MethodMean) -> list[Cell]:
    name, number = Cell(METHOD_NAMES[mean.method]), Cell(str(mean.images), "", mean.images)
    if mean.share is None or mean.area is None:
        return [name, *(Cell(MISSING) for _ in range(4)), number]
    excess = mean.share - mean.area
    return [
        name,
        Cell(percent(mean.share), "", mean.share),
        Cell(percent(mean.area), "", mean.area),
        Cell(f"{100 * excess:+.1f}", "", excess),
        Cell(mean.compared or MISSING),
        number,
    ]


def _points(difference: float) -> str:
    return f"{100 * difference:.1f} percentage"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
