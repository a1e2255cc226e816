"""Convert results to the content of JSON files, and back.

A measure is named in files as in results, but with blanks for underscores, beside the other entries
of its part. Files of version 0.1 have the same shape; they lack ``measures``, and call the setting
``resamples`` ``samples``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from faster_isnet.evaluation.intervals import Score
from faster_isnet.evaluation.measures import MEASURES, RESERVED_NAMES, Measure
from faster_isnet.evaluation.opinions import SavedOpinion
from faster_isnet.evaluation.results import (
    Attention,
    ClassScores,
    Confusion,
    Differences,
    OperatingPoint,
    Picture,
    Results,
    SavedPicture,
    SavedResults,
    ScoreByName,
    Scores,
    Sensitivity,
    agreements,
)

Json = dict[str, Any]
_DESCRIBED = [field.name for field in fields(Measure)]


def key_of(name: str) -> str:
    """Return how files call a measure.

    Examples
    --------
    >>> key_of("balanced_accuracy")
    'balanced accuracy'
    """
    return name.replace("_", " ")


def results_to_json(results: Results, pictures: Sequence[SavedPicture]) -> Json:
    """Return what was found on one data set, ready for JSON."""
    subgroups = {
        column: {value: _measured_to_json(found) for value, found in values.items()}
        for column, values in results.subgroups.items()
    }
    opinions = {kind: asdict(found) for kind, found in agreements(pictures).items()}
    return {
        **_measured_to_json(results),
        **({"subgroups": subgroups} if subgroups else {}),
        **({"second opinion": opinions} if opinions else {}),  # it follows from the pictures
        "pictures": [_picture_to_json(picture) for picture in pictures],
    }


def results_from_json(content: Json) -> SavedResults:
    """Read what :func:`results_to_json` returned.

    Raises
    ------
    KeyError, TypeError, ValueError, AttributeError
        If it is something else.
    """
    subgroups = {
        column: {value: Results(**_measured_from_json(found)) for value, found in values.items()}
        for column, values in content.get("subgroups", {}).items()  # most files have none
    }
    pictures = [_picture_from_json(picture) for picture in content["pictures"]]
    return SavedResults(**_measured_from_json(content), subgroups=subgroups, pictures=pictures)


def differences_to_json(found: Differences) -> Json:
    """Return how two classifiers differ, ready for JSON."""
    return {
        "images": found.images,
        **_named_to_json(found.overall),
        "macro": _named_to_json(found.macro),
        "classes": _classes_to_json(found.classes),
    }


def measures_to_json(measures: Iterable[Measure]) -> list[Json]:
    """Return how measures are called and shown, ready for JSON; not how they are computed."""
    return [{name: getattr(measure, name) for name in _DESCRIBED} for measure in measures]


def measures_from_json(content: Sequence[Json] | None) -> tuple[Measure, ...]:
    """Read what :func:`measures_to_json` returned; without any, those of the package."""
    return MEASURES if content is None else tuple(Measure(**each) for each in content)


def _measured_to_json(results: Results) -> Json:
    points = {
        name: {
            "threshold": point.threshold if math.isfinite(point.threshold) else None,
            "sensitivity": _score_to_json(point.sensitivity),
            "specificity": _score_to_json(point.specificity),
        }
        for name, point in results.operating_points.items()
    }
    return {
        "thresholds": None if results.thresholds is None else dict(results.thresholds),
        "scores": _scores_to_json(results.scores),
        "attention": results.attention and _attention_to_json(results.attention),
        "sensitivity": results.sensitivity and _sensitivity_to_json(results.sensitivity),
        **({"operating points": points} if points else {}),
    }


def _measured_from_json(content: Json) -> Json:
    attention, sensitivity = content["attention"], content["sensitivity"]
    return {
        "thresholds": content["thresholds"],
        "scores": _scores_from_json(content["scores"]),
        "attention": None if attention is None else _attention_from_json(attention),
        "sensitivity": None if sensitivity is None else _sensitivity_from_json(sensitivity),
        "operating_points": {
            name: OperatingPoint(
                math.inf if point["threshold"] is None else point["threshold"],
                Score(**point["sensitivity"]),
                Score(**point["specificity"]),
            )
            for name, point in content.get("operating points", {}).items()
        },
    }


def _score_to_json(score: Score) -> Json:
    content = asdict(score)
    return {
        name: value
        for name, value in content.items()
        if value is not None or name in ("value", "low", "high")
    }


def _named_to_json(scores: ScoreByName) -> Json:
    return {key_of(name): _score_to_json(score) for name, score in scores.items()}


def _named_from_json(content: Json) -> dict[str, Score]:
    """Read the scores among the entries of a part."""
    return {
        key.replace(" ", "_"): Score(**entry)
        for key, entry in content.items()
        if key not in RESERVED_NAMES
    }


def _classes_to_json(classes: Mapping[str, ClassScores]) -> Json:
    return {
        name: {"images": found.images, **_named_to_json(found.scores)}
        for name, found in classes.items()
    }


def _classes_from_json(content: Json) -> dict[str, ClassScores]:
    return {
        name: ClassScores(entry["images"], _named_from_json(entry))
        for name, entry in content.items()
    }


def _scores_to_json(found: Scores) -> Json:
    tables = [[list(row) for row in table] for table in found.confusion.tables]
    return {
        "images": found.images,
        "groups": found.groups,
        **_named_to_json(found.overall),
        "macro": _named_to_json(found.macro),
        "classes": _classes_to_json(found.classes),
        "confusion": tables if found.confusion.multilabel else tables[0],
    }


def _scores_from_json(content: Json) -> Scores:
    tables = content["confusion"]
    multilabel = isinstance(tables[0][0], list)
    return Scores(
        images=content["images"],
        groups=content["groups"],
        overall=_named_from_json(content),
        macro=_named_from_json(content["macro"]),
        classes=_classes_from_json(content["classes"]),
        confusion=Confusion(
            tuple(
                tuple(tuple(row) for row in table) for table in (tables if multilabel else [tables])
            ),
            multilabel,
        ),
    )


def _attention_to_json(found: Attention) -> Json:
    return {
        "images": found.images,
        **_named_to_json(found.overall),
        "classes": _classes_to_json(found.classes),
    }


def _attention_from_json(content: Json) -> Attention:
    classes = _classes_from_json(content["classes"])
    return Attention(content["images"], _named_from_json(content), classes)


def _sensitivity_to_json(found: Sensitivity) -> Json:
    return {
        "images": found.images,
        **_named_to_json(found.untouched),
        "backgrounds": {name: _named_to_json(each) for name, each in found.backgrounds.items()},
    }


def _sensitivity_from_json(content: Json) -> Sensitivity:
    backgrounds = {name: _named_from_json(each) for name, each in content["backgrounds"].items()}
    return Sensitivity(content["images"], _named_from_json(content), backgrounds)


def _picture_to_json(picture: SavedPicture) -> Json:
    described = {field.name: getattr(picture, field.name) for field in fields(Picture)}
    opinions = [asdict(each) for each in picture.opinions]
    return {"file": picture.file, **described, **({"opinions": opinions} if opinions else {})}


def _picture_from_json(content: Json) -> SavedPicture:
    opinions = [SavedOpinion(**each) for each in content.get("opinions", ())]
    return SavedPicture(**{**content, "opinions": opinions})
