"""Say in sentences what an audit found: for its page, for a terminal, and for a model card."""

from __future__ import annotations

from faster_isnet.evaluation.audit import ABOVE, BELOW, Audit, RelevanceFindings
from faster_isnet.evaluation.audit.variants import ENLARGEMENT
from faster_isnet.evaluation.intervals import Score
from faster_isnet.plotting.heatmaps import percent
from faster_isnet.reporting.second_opinion import sentences

NO_PROOF = (
    "A clean heatmap alone proves nothing, and neither does a prediction that stays: the audit "
    "sees no clue within the foreground, and none that all of these images share."
)
REFERENCE = "none, but enlarged"
"""What the harmless change is called beside the kinds of backgrounds."""
_BACKGROUNDS = {
    "blur": "blurred",
    "noise": "noise",
    "zeros": "black",
    "another image": "another image's",
    "another class": "another class's",
}


_REALISTIC = {
    "another image": "another image",
    "another class": "an image that is predicted as something else",
}


def background_name(kind: str) -> str:
    """Return what a kind of background is called in tables."""
    return _BACKGROUNDS.get(kind, kind)


def share(score: Score) -> str:
    """Return a share with its interval, in percent."""
    if score.value is None:
        return f"unknown ({score.reason})"
    if score.low is None or score.high is None:
        return percent(score.value)
    return f"{percent(score.value)} ({100 * score.low:.1f} to {100 * score.high:.1f})"


def headline(audit: Audit) -> str:
    """Return the answer in a sentence: how many predictions change when the background does."""
    found = audit.findings
    return (
        f"{audit.name}: {share(found.changed)} of {found.images} predictions change when only the "
        "background does"
    )


def judgement(audit: Audit) -> str:
    """Compare that with the limit, in words."""
    limit = percent(audit.limit)
    by = f"The new background is that of {_REALISTIC[audit.findings.realistic]}. "
    if audit.verdict == ABOVE:
        return f"{by}More than {limit} change: the classifier depends on the background."
    if audit.verdict == BELOW:
        return (
            f"{by}Fewer than {limit} change: no strong dependence on the background was found, "
            "which is no proof that there is none."
        )
    return (
        f"{by}These images are too few to tell whether more than {limit} change, since the "
        "interval contains that. Judge more images."
    )


def verdict(audit: Audit) -> str:
    """Return the judgement in a few words."""
    limit = percent(audit.limit)
    words = {ABOVE: f"depends on the background: more than {limit} change"}
    words[BELOW] = f"no strong dependence found: fewer than {limit} change"
    return words.get(audit.verdict, f"open: whether more than {limit} change")


def attention(found: RelevanceFindings | None) -> str:
    """Say how much relevance lies in the background, and whether that is more than by chance."""
    if found is None:
        return "Where the classifier looks was not measured."
    low, high = found.excess.low, found.excess.high
    if low is None or high is None or low <= 0 <= high:
        compared = "whether that is more or less than a heatmap that is the same everywhere would "
        compared += "have there cannot be told"
    else:
        than = "more" if low > 0 else "less"
        compared = f"{than} than a heatmap that is the same everywhere would have there"
    return (
        f"{share(found.share)} of its relevance lies in the background, which is "
        f"{percent(found.area.value or 0)} of the area: {compared}."
    )


def confident(audit: Audit) -> str:
    """Say how many of the confident predictions change."""
    found = audit.findings.confident
    if found is None:
        return "Too few predictions are confident to judge them alone; unsure ones change easily."
    return (
        f"Of the {found.images} predictions with {found.name}, {share(found.changed)} change; "
        "unsure ones change easily."
    )


def reference(audit: Audit) -> str:
    """Say how many predictions a harmless change of the whole image changes, for comparison."""
    found = audit.findings.reference
    if found is None:
        return (
            "What a harmless change of the whole image does was not measured by the version that "
            "made this audit; make it anew to compare."
        )
    said = (
        f"For comparison: {share(found.changed)} change when the whole image is enlarged by "
        f"{ENLARGEMENT:.0%} instead, foreground and background alike"
    )
    excess, low, high = found.excess.value, found.excess.low, found.excess.high
    if excess is None or low is None or high is None or low <= 0 <= high:
        return f"{said}. Whether the background changes more than that cannot be told."
    by = f"{abs(100 * excess):.1f} points"
    if low > 0:
        return f"{said}. The background changes {by} more ({100 * low:.1f} to {100 * high:.1f})."
    return f"{said}, {by} more than with another background: they are unstable anyway."


def without_foreground(audit: Audit) -> str:
    """Say how many predictions need no foreground."""
    return (
        f"{share(audit.findings.unchanged_without_foreground)} of predictions stay the same when "
        "the foreground is removed (filled in from its surroundings)."
    )


def mask_words(audit: Audit) -> list[str]:
    """Say what the masks are worth."""
    found, margin = audit.findings, audit.settings["mask_change"]
    implausible = audit.masks.implausible
    words = [
        f"Masks: {audit.masks.source}. The background is {share(found.area)} of the area."
        + ("" if implausible is None else f" {implausible} masks look implausible (masks.csv).")
    ]
    for change, changed in found.mask_changes.items():
        words.append(
            f"With {change} by {margin:.0%} of their size {share(changed.changed)} of predictions "
            "change"
            + (
                "."
                if changed.relevance is None
                else f", and {share(changed.relevance.share)} of the relevance lies in the "
                f"background, {percent(changed.area.value or 0)} of the area."
            )
        )
    return words


def summary(audit: Audit) -> str:
    """Return the lines that a terminal shows."""
    found = audit.findings
    lines = [f"{headline(audit)}.", judgement(audit), "", "Predictions that change, by background:"]
    lines += [
        f"  {background_name(kind)}: {share(each.changed)}"
        for kind, each in found.backgrounds.items()
    ]
    lines += [
        "",
        confident(audit),
        reference(audit),
        without_foreground(audit),
        attention(found.relevance),
        *mask_words(audit),
    ]
    if (found_by_all := audit.agreement) is not None:
        lines += ["", "A second opinion, on the images shown:"]
        lines += [f"  {each}" for each in sentences(found_by_all)]
    if audit.not_judged:
        lines += ["", "Not judged:", *(f"  {each}" for each in audit.not_judged)]
    return "\n".join(lines)


def _second_opinion(audit: Audit) -> list[str]:
    """Return a paragraph of a model card, if other methods were asked."""
    found = audit.agreement
    if found is None:
        return []
    said = " ".join(sentences(found, named=False))
    return [f"A second opinion, on the {found.images} images that change most: {said}", ""]


def model_card(audit: Audit) -> str:
    """Return a section of Markdown for the classifier's model card."""
    found = audit.findings
    rows = [
        f"| {background_name(kind)} | {share(each.changed)} |"
        for kind, each in found.backgrounds.items()
    ]
    limits = [*audit.not_judged, NO_PROOF]
    return "\n".join(
        [
            "## Dependence on the background",
            "",
            f"{headline(audit)}. {judgement(audit)}",
            "",
            "| the background is replaced: | predictions that change |",
            "|---|---|",
            *rows,
            "",
            confident(audit),
            reference(audit),
            without_foreground(audit),
            attention(found.relevance),
            "",
            *mask_words(audit),
            "",
            *_second_opinion(audit),
            f"Of {audit.counts.given} images {found.images} were judged. Intervals contain "
            f"{audit.settings['level']:.0%} of the values on resampled "
            f"{'groups' if found.groups < found.images else 'images'}. Measured on "
            f"{audit.date[:10]} by faster-isnet {audit.environment['faster-isnet']}, of weights "
            f"with the SHA-256 {audit.model.sha256[:16]}….",
            "",
            "Limits:",
            "",
            *(f"- {each}" for each in limits),
            "",
        ]
    )
