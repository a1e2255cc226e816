"""Write the page of an audit, or of several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from matplotlib.figure import Figure

from faster_isnet.common.files import write_atomically
from faster_isnet.evaluation.audit import Audit, AuditPicture, GroupFindings, RelevanceFindings
from faster_isnet.evaluation.intervals import Score
from faster_isnet.evaluation.measures import MEASURES
from faster_isnet.reporting import audit_text
from faster_isnet.reporting.pages import (
    check_names_differ,
    data_uri,
    environment,
    read_script,
    script_hash,
)
from faster_isnet.reporting.result_tables import (
    MISSING,
    Cell,
    Column,
    Row,
    Table,
    count_cell,
    difference_cell,
    score_cell,
)
from faster_isnet.reporting.score_bars import score_bars
from faster_isnet.reporting.second_opinion import (
    ShownOpinion,
    ShownSecondOpinion,
    shown_opinions,
    shown_second_opinion,
)

_SHOWN = 20  # classes of each audit
_SHARE = next(measure for measure in MEASURES if measure.name == "changed")


@dataclass(frozen=True)
class ShownPicture:
    """An image as it is, with another background, and its heatmap, as ``data:`` URIs."""

    picture: AuditPicture
    image: str
    original: str
    changed: str
    heatmap: str | None
    opinions: list[ShownOpinion]


@dataclass(frozen=True)
class AuditSection:
    """What the page shows of one audit."""

    audit: Audit
    headline: str
    judgement: str
    sentences: list[str]
    pictures: list[ShownPicture]
    second_opinion: ShownSecondOpinion | None


def write_audit_page(path: str | Path, audits: Sequence[Audit]) -> Path:
    """Write the page; an older one at ``path`` stays whole if anything fails.

    Parameters
    ----------
    path
        The HTML file; missing folders are made.
    audits
        One or more, each with a name of its own.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    ValueError
        If there are no audits, two have one name, or their intervals have different levels.
    FileNotFoundError
        If a picture is missing.
    """
    names = [audit.name for audit in audits]
    if not names:
        raise ValueError("there are no audits to show")
    check_names_differ(names, "audits", "make them again")
    if len(levels := {audit.settings["level"] for audit in audits}) > 1:
        raise ValueError(
            f"the audits' intervals have the levels {sorted(levels)}; make all with one: --level"
        )
    script = read_script("tables.js")
    page = environment().get_template("audit.html.jinja")
    rendered = page.render(
        sections=[_section(audit) for audit in audits],
        level=audits[0].settings["level"],
        bars=data_uri(_bars(audits)),
        verdicts=_verdict_table(audits) if len(audits) > 1 else None,
        backgrounds=_background_table(audits),
        attention=_attention_table(audits),
        masks=_mask_table(audits),
        classes=_group_table(audits, "classes", "Predicted class"),
        attributes=_group_table(audits, "attributes", "Attribute"),
        no_proof=audit_text.NO_PROOF,
        missing=MISSING,
        script=script,
        script_hash=script_hash(script),
    )
    return write_atomically(path, rendered.encode())


def _section(audit: Audit) -> AuditSection:
    found = audit.agreement
    return AuditSection(
        audit,
        audit_text.headline(audit),
        audit_text.judgement(audit),
        [
            audit_text.confident(audit),
            audit_text.reference(audit),
            audit_text.without_foreground(audit),
            audit_text.attention(audit.findings.relevance),
            *audit_text.mask_words(audit),
        ],
        [_shown(audit, picture) for picture in audit.pictures],
        shown_second_opinion({} if found is None else {"those that change most": found}),
    )


def _shown(audit: Audit, picture: AuditPicture) -> ShownPicture:
    return ShownPicture(
        picture,
        PurePath(picture.image).name,
        data_uri(audit.read(picture.original), "jpeg"),
        data_uri(audit.read(picture.changed), "jpeg"),
        None if picture.heatmap is None else data_uri(audit.read(picture.heatmap)),
        shown_opinions(picture.opinions, audit.read),
    )


def _bars(audits: Sequence[Audit]) -> Figure:
    kinds = list(dict.fromkeys(kind for audit in audits for kind in audit.findings.backgrounds))
    scores = {}
    for audit in audits:
        found = audit.findings.backgrounds
        scores[audit.name] = [found[k].changed if k in found else Score(None) for k in kinds]
        scores[audit.name].append(_reference(audit))
    groups = [*(audit_text.background_name(kind) for kind in kinds), audit_text.REFERENCE]
    return score_bars(scores, groups, "Predictions that change")


def _reference(audit: Audit) -> Score:
    """Return what a harmless change does; without a value if it was not measured."""
    found = audit.findings.reference
    return Score(None, reason="not measured") if found is None else found.changed


def _verdict_table(audits: Sequence[Audit]) -> Table:
    rows = []
    for audit in audits:
        found = audit.findings
        excess = Score(None) if found.relevance is None else found.relevance.excess
        cells = [
            Cell(audit.name),
            Cell(audit_text.verdict(audit)),
            score_cell(found.changed, _SHARE),
            score_cell(_reference(audit), _SHARE),
            score_cell(found.unchanged_without_foreground, _SHARE),
            replace(difference_cell(excess, _SHARE), improves=None),  # no verdict by itself
            count_cell(found.images),
        ]
        rows.append(Row(cells))
    columns = [
        Column("Classifier"),
        Column("Verdict"),
        Column("Predictions that change", "when only the background does"),
        Column("When enlarged", "predictions that change when the whole image is enlarged instead"),
        Column("Same without foreground", "predictions that stay when the foreground is removed"),
        Column("Relevance in the background minus its area", _EXCESS.help),
        Column("Images judged"),
    ]
    return Table("The classifiers side by side", columns, rows)


def _background_table(audits: Sequence[Audit]) -> Table:
    kinds = list(dict.fromkeys(kind for audit in audits for kind in audit.findings.backgrounds))
    rows = []
    for kind in kinds:
        found = [audit.findings.backgrounds.get(kind) for audit in audits]
        changed = [Score(None) if each is None else each.changed for each in found]
        rows.append(
            Row(
                [
                    Cell(audit_text.background_name(kind)),
                    *(score_cell(each, _SHARE) for each in changed),
                ]
            )
        )
    references = (score_cell(_reference(audit), _SHARE) for audit in audits)
    rows.append(Row([Cell(audit_text.REFERENCE, "for comparison"), *references]))
    columns = [Column("New background"), *(Column(audit.name) for audit in audits)]
    return Table("Predictions that change; the foreground stays as it is", columns, rows)


def _relevance_cells(found: RelevanceFindings | None) -> list[Cell]:
    if found is None:
        return [Cell(MISSING, "not measured") for _ in range(3)]
    return [
        score_cell(found.share, _SHARE),
        score_cell(found.area, _SHARE),
        replace(difference_cell(found.excess, _SHARE), improves=None),  # no verdict by itself
    ]


_EXCESS = Column("Share minus area", "in percentage points; below 0 is less than by chance")
_RELEVANCE_COLUMNS = [
    Column("Relevance in the background", "share of the absolute relevance"),
    Column("Area of the background", "what a heatmap that is the same everywhere has there"),
    _EXCESS,
]


def _attention_table(audits: Sequence[Audit]) -> Table:
    rows = [
        Row(
            [
                Cell(audit.name),
                *_relevance_cells(audit.findings.relevance),
                score_cell(audit.findings.unchanged_without_foreground, _SHARE),
            ]
        )
        for audit in audits
    ]
    last = Column("Same without foreground", "predictions that stay when the foreground is removed")
    return Table("Means over images", [Column("Classifier"), *_RELEVANCE_COLUMNS, last], rows)


def _mask_table(audits: Sequence[Audit]) -> Table:
    rows = []
    for audit in audits:
        found = audit.findings
        by_masks = {"as they are": (found.changed, found.relevance)} | {
            name: (each.changed, each.relevance) for name, each in found.mask_changes.items()
        }
        for name, (changed, relevance) in by_masks.items():
            cells = [Cell(audit.name), Cell(name), score_cell(changed, _SHARE)]
            rows.append(Row([*cells, *_relevance_cells(relevance)]))
    columns = [Column("Classifier"), Column("Masks"), Column("Predictions that change")]
    return Table(
        "The same with masks that are larger and smaller", [*columns, *_RELEVANCE_COLUMNS], rows
    )


def _group_table(audits: Sequence[Audit], of: str, title: str) -> Table | None:
    rows = []
    for audit in audits:
        groups: list[GroupFindings] = getattr(audit.findings, of)
        for found in groups[:_SHOWN]:
            cells = [Cell(audit.name), Cell(found.name), count_cell(found.images)]
            cells += [score_cell(found.changed, _SHARE), *_relevance_cells(found.relevance)]
            rows.append(Row(cells))
    if not rows:
        return None
    columns = [
        *(Column("Classifier"), Column(title), Column("Images")),
        *(Column("Predictions that change"), *_RELEVANCE_COLUMNS),
    ]
    caption = f"The most changed first, at most {_SHOWN} of each classifier"
    return Table(caption, columns, rows)
