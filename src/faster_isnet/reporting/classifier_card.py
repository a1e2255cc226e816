"""Write the card of a classifier that is put on a model hub."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from faster_isnet.evaluation.saved_evaluation import SavedEvaluation
from faster_isnet.reporting.markdown import markdown_table
from faster_isnet.reporting.result_tables import overall_table

NO_PROOF = (
    "A clean heatmap is no proof that a classifier does not read the background, and neither is a "
    "prediction that stays when the background changes: clues within the foreground, and clues "
    "that all images share, are not seen. Test it on images from where it is to be used."
)


def classifier_card(
    name: str,
    *,
    architecture: str,
    class_names: Sequence[str],
    preprocessing: str,
    sha256: str,
    method: str,
    trained_on: str | None = None,
    licence: str | None = None,
    evaluation: SavedEvaluation | None = None,
    version: str,
) -> str:
    """Return a card in Markdown, which begins with what hubs read.

    Parameters
    ----------
    name
        ``"ORG/NAME"``.
    architecture, class_names, preprocessing, sha256
        Of the network.
    method
        How it was trained.
    trained_on
        On what, in words; ``None`` if that is not told.
    licence
        As the Hub calls it, such as ``"cc-by-4.0"``; ``None`` if none is given.
    evaluation
        Of ``faster-isnet test``; ``None`` if it was not tested.
    version
        Of faster-isnet.
    """
    head = {
        **({} if licence is None else {"license": licence}),
        "library_name": "faster-isnet",
        "pipeline_tag": "image-classification",
    }
    terms = (
        f"{licence}."
        if licence
        else "None is given, so that nothing is permitted; ask who uploaded it."
    )
    return "\n".join(
        [
            "---",
            yaml.safe_dump(head, sort_keys=False).strip(),
            "---",
            "",
            f"# {name}",
            "",
            f"A classifier of images, {architecture}, trained with faster-isnet {version}.",
            "",
            f"- Classes: {', '.join(class_names)}",
            f"- Images: {preprocessing}",
            f"- Trained by: {method}",
            f"- Trained on: {trained_on or 'not told'}",
            f"- Licence: {terms}",
            f"- SHA-256 of the weights: {sha256}",
            "",
            "```sh",
            f"faster-isnet explain hub:{name} images",
            f"faster-isnet audit hub:{name} images --masks masks",
            "```",
            "",
            "## Tests",
            "",
            *_tests(evaluation),
            "",
            "## Limits",
            "",
            NO_PROOF,
            "",
        ]
    )


def _tests(evaluation: SavedEvaluation | None) -> list[str]:
    if evaluation is None:
        return ["It was not tested (`faster-isnet test`) before it was uploaded."]
    tables = [markdown_table(overall_table([evaluation], data)) for data in evaluation.sets]
    parts = [
        f"### {data}\n\n{table}\n" for data, table in zip(evaluation.sets, tables, strict=True)
    ]
    warned = [f"- {each}" for each in evaluation.training_warnings]
    return [*parts, *(["At the end of the training:", "", *warned, ""] if warned else [])]
