"""Write one page of evaluations, of one classifier or of several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from matplotlib.figure import Figure

from faster_isnet.common.files import write_atomically
from faster_isnet.evaluation.classification import calibration_curve
from faster_isnet.evaluation.intervals import Score
from faster_isnet.evaluation.measures import (
    BACKGROUND_AREA,
    BACKGROUND_SHARE,
    PERCENT,
    Measure,
)
from faster_isnet.evaluation.results import Differences, SavedPicture, ScoreByName
from faster_isnet.evaluation.saved_evaluation import SavedEvaluation
from faster_isnet.plotting.charts import (
    confusion_figure,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
)
from faster_isnet.plotting.heatmaps import percent
from faster_isnet.reporting import result_tables as tables
from faster_isnet.reporting.pages import (
    check_names_differ,
    data_uri,
    environment,
    read_script,
    script_hash,
)
from faster_isnet.reporting.result_tables import Table
from faster_isnet.reporting.score_bars import score_bars
from faster_isnet.reporting.second_opinion import (
    ShownOpinion,
    ShownSecondOpinion,
    shown_opinions,
    shown_second_opinion,
)

DifferencesByName = Mapping[str, Differences]
"""How classifiers differ from the first, by their names."""
_KINDS = {
    "example": "examples",
    "worst": "images chosen for the most relevance in the background by LRP",
}


@dataclass(frozen=True)
class Illustration:
    """A picture of a page, with its description and caption."""

    uri: str
    alt: str
    caption: str
    class_name: str | None = None


@dataclass(frozen=True)
class Shot:
    """An image beside its heatmap by one of the classifiers."""

    picture: SavedPicture
    classifier: str
    caption: str
    uri: str
    opinions: list[ShownOpinion]


@dataclass(frozen=True)
class ExampleImage:
    """An image with its heatmaps by all classifiers."""

    image: str
    label: str
    shots: list[Shot]


@dataclass(frozen=True)
class Section:
    """All that the page shows of one data set; a part is ``None`` or empty if there is none."""

    name: str
    overall: Table
    differences: Table | None
    classes: Table
    operating_points: Table | None
    subgroups: list[Table]
    never_predicted: list[str]
    curves: list[Illustration]
    confusions: list[Illustration]
    attention: Table | None
    attention_bars: list[Illustration]
    sensitivity: Table | None
    sensitivity_bars: list[Illustration]
    examples: list[ExampleImage]
    worst: dict[str, list[Shot]]
    second_opinion: ShownSecondOpinion | None


def write_evaluation_page(
    path: str | Path,
    evaluations: Sequence[SavedEvaluation],
    differences: Mapping[str, DifferencesByName] | None = None,
) -> Path:
    """Write the page; an older one at ``path`` stays whole if anything fails.

    Parameters
    ----------
    path
        The HTML file; missing folders are made.
    evaluations
        One or more, of classifiers with the same classes, each with a name of its own.
    differences
        By data set and classifier, how each differs from the first, see
        :func:`~faster_isnet.evaluation.differences`.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    ValueError
        If there are no evaluations, their classes differ, two have one name, or a file of theirs
        is damaged.
    """
    return write_atomically(path, render_evaluation_page(evaluations, differences).encode())


def render_evaluation_page(
    evaluations: Sequence[SavedEvaluation],
    differences: Mapping[str, DifferencesByName] | None = None,
) -> str:
    """Return the page of :func:`write_evaluation_page`, which has the parameters and errors."""
    check_comparable(evaluations)
    script = read_script("tables.js")
    page = environment().get_template("evaluation.html.jinja")
    by_set = differences or {}
    return page.render(
        headline=headline(evaluations),
        evaluations=evaluations,
        class_names=evaluations[0].class_names,
        task=evaluations[0].task,
        level=evaluations[0].settings.level,
        sections=[_section(evaluations, data, by_set.get(data, {})) for data in _sets(evaluations)],
        missing=tables.MISSING,
        script=script,
        script_hash=script_hash(script),
    )


def check_comparable(evaluations: Sequence[SavedEvaluation]) -> None:
    """Raise ``ValueError`` unless evaluations can be shown side by side."""
    if not evaluations:
        raise ValueError("there are no evaluations to report")
    check_names_differ([each.name for each in evaluations], "runs", "test them again")
    first = evaluations[0]
    for other in evaluations[1:]:
        if other.class_names != first.class_names:
            raise ValueError(
                f"the classes of {first.name!r} are {first.class_names}, those of "
                f"{other.name!r} {other.class_names}; compare runs of the same classes"
            )


def headline(evaluations: Sequence[SavedEvaluation]) -> str:
    """Return what was found on the first data set in a sentence for each classifier."""
    data = _sets(evaluations)[0]
    sentences = []
    for evaluation in evaluations:
        if data not in evaluation.sets:
            continue
        found = evaluation.sets[data]
        accuracy = _percent(found.scores.overall["accuracy"])
        sentence = f"{evaluation.name} classifies {accuracy} of images correctly"
        if found.attention:
            share = _percent(found.attention.overall[BACKGROUND_SHARE])
            sentence += f", with {share} of its relevance in the background"
            if BACKGROUND_AREA in found.attention.overall:  # evaluations of 0.1 lack it
                area = _percent(found.attention.overall[BACKGROUND_AREA])
                sentence += f", which is {area} of the area"
        sentences.append(sentence + ".")
    return " ".join(sentences)


def _percent(score: Score) -> str:
    return tables.MISSING if score.value is None else percent(score.value)


def _sets(evaluations: Sequence[SavedEvaluation]) -> list[str]:
    """Return the names of all data sets, those of the first evaluation first."""
    return list(dict.fromkeys(name for each in evaluations for name in each.sets))


def _section(
    evaluations: Sequence[SavedEvaluation], data: str, differences: DifferencesByName
) -> Section:
    present = [each for each in evaluations if data in each.sets]
    attention = [each for each in present if each.sets[data].attention]
    sensitivity = [each for each in present if each.sets[data].sensitivity]
    return Section(
        name=data,
        overall=tables.overall_table(present, data),
        differences=tables.difference_table(present, differences) if differences else None,
        classes=tables.class_table(present, data, differences),
        operating_points=tables.operating_table(present, data),
        subgroups=tables.subgroup_tables(present, data),
        never_predicted=[
            remark for each in present if (remark := tables.never_predicted(each, data))
        ],
        curves=[_reliability(present, data), *_curves(present, data)],
        confusions=[_confusion(each, data) for each in present],
        attention=tables.attention_table(attention, data) if attention else None,
        attention_bars=_attention_bars(attention, data),
        sensitivity=tables.sensitivity_table(sensitivity, data) if sensitivity else None,
        sensitivity_bars=_sensitivity_bars(sensitivity, data),
        examples=_examples(present, data),
        worst={each.name: shots for each in present if (shots := _shots(each, data, "worst"))},
        second_opinion=shown_second_opinion(
            {
                f"{each.name}, {_KINDS.get(kind, kind)}": found
                for each in present
                for kind, found in each.sets[data].agreements.items()
            }
        ),
    )


def _curves(evaluations: Sequence[SavedEvaluation], data: str) -> list[Illustration]:
    """Draw for each class the curves of all classifiers, of that class against all others."""
    predictions = {each.name: each.predictions(data) for each in evaluations}
    drawn = []
    for c, name in enumerate(evaluations[0].class_names):
        curves = {
            classifier: (found.has_class[:, c], found.probabilities[:, c])
            for classifier, found in predictions.items()
        }
        scores = {each.name: each.sets[data].scores.classes[name].scores for each in evaluations}
        for measure, draw, what in (
            ("auc", roc_figure, "ROC"),
            ("average_precision", precision_recall_figure, "Precision and recall"),
        ):
            areas = {
                classifier: value
                for classifier, found in scores.items()
                if measure in found and (value := found[measure].value) is not None
            }
            caption = f"{what}: {name} against others"
            drawn.append(_illustration(draw(curves, areas), "Curves", caption, name))
    return drawn


def _reliability(evaluations: Sequence[SavedEvaluation], data: str) -> Illustration:
    """Draw how often all classifiers are right, by how sure they are."""
    curves = {each.name: calibration_curve(each.predictions(data)) for each in evaluations}
    return _illustration(reliability_figure(curves), "Curves", "Reliability")


def _confusion(evaluation: SavedEvaluation, data: str) -> Illustration:
    confusion, classes = evaluation.sets[data].scores.confusion, evaluation.class_names
    if confusion.multilabel:
        figure = confusion_figure(confusion.tables, ["no", "yes"], classes)
    else:
        figure = confusion_figure(confusion.tables, classes)
    return _illustration(figure, "Confusion matrix", evaluation.name)


def _attention_bars(evaluations: Sequence[SavedEvaluation], data: str) -> list[Illustration]:
    """Draw bars of each highlighted measure, over all images and for each class."""
    rows: dict[str, dict[str, ScoreByName]] = {}
    for evaluation in evaluations:
        if found := evaluation.sets[data].attention:
            by_class = {name: each.scores for name, each in found.classes.items()}
            rows[evaluation.name] = {"all": found.overall, **by_class}
    return _bars(rows, tables.measures_of(evaluations, "attention"))


def _sensitivity_bars(evaluations: Sequence[SavedEvaluation], data: str) -> list[Illustration]:
    """Draw bars of each highlighted measure, for each background."""
    rows = {
        evaluation.name: dict(found.backgrounds)
        for evaluation in evaluations
        if (found := evaluation.sets[data].sensitivity)
    }
    return _bars(rows, tables.measures_of(evaluations, "sensitivity"))


def _bars(
    rows: Mapping[str, Mapping[str, ScoreByName]], measures: Sequence[Measure]
) -> list[Illustration]:
    """Draw bars of the highlighted measures from the scores of each classifier and group."""
    drawn = []
    for measure in measures if rows else ():
        if not measure.highlighted:
            continue
        groups = list(next(iter(rows.values())))
        scores = {
            classifier: [by_group[group].get(measure.name, Score(None)) for group in groups]
            for classifier, by_group in rows.items()
        }
        is_percent = measure.unit == PERCENT
        label = measure.title if is_percent else f"{measure.title} {measure.unit}".rstrip()
        figure = score_bars(scores, groups, label, is_percent)
        drawn.append(_illustration(figure, "Bars", f"{measure.title}, with intervals"))
    return drawn


def _illustration(
    figure: Figure, what: str, caption: str, class_name: str | None = None
) -> Illustration:
    return Illustration(data_uri(figure), f"{what}: {caption}", caption, class_name)


def _shots(evaluation: SavedEvaluation, data: str, kind: str) -> list[Shot]:
    return [
        Shot(
            picture,
            evaluation.name,
            evaluation.name if kind == "example" else f"true: {picture.label}",
            data_uri(evaluation.png(picture)),
            shown_opinions(picture.opinions, evaluation.read),
        )
        for picture in evaluation.sets[data].pictures
        if picture.kind == kind
    ]


def _examples(evaluations: Sequence[SavedEvaluation], data: str) -> list[ExampleImage]:
    """Return the examples, each with its heatmaps by all classifiers."""
    by_image: dict[str, ExampleImage] = {}
    for evaluation in evaluations:
        for shot in _shots(evaluation, data, "example"):
            name = shot.picture.image
            new = ExampleImage(PurePath(name).name, shot.picture.label, [])
            by_image.setdefault(name, new).shots.append(shot)
    return list(by_image.values())
