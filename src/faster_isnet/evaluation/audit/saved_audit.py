"""Save what an audit found as JSON with a schema, and its pictures; load it again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faster_isnet.common.construction import construct
from faster_isnet.common.files import write_atomically
from faster_isnet.evaluation.audit.findings import TOLERATED, AuditFindings
from faster_isnet.evaluation.opinions import Agreement, PicturedImage, SavedOpinion, agreement

AUDIT = "audit.json"
IMAGES = "images.csv"
FORMAT = 1


@dataclass(frozen=True)
class Model:
    """Describe the classifier.

    Attributes
    ----------
    given
        What was named: a run, a network's name, a file, a function.
    architecture
        Name of the network.
    classes
        How many.
    task
        ``"multiclass"`` or ``"multilabel"``.
    preprocessing
        What is done to images before the network, in words.
    sha256
        Hash of its weights, or of its file.
    revision
        The hash of the commit that it was fetched from; empty if it was on this machine.
    """

    given: str
    architecture: str
    classes: int
    task: str
    preprocessing: str
    sha256: str
    revision: str = ""


@dataclass(frozen=True)
class Counts:
    """Hold numbers of images.

    Attributes
    ----------
    given
        How many there are.
    without_mask
        How many have no mask, or one without foreground.
    unreadable
        How many cannot be used: image or mask cannot be read, or their sizes differ.
    """

    given: int
    without_mask: int
    unreadable: int


@dataclass(frozen=True)
class Masks:
    """Describe where masks are from.

    Attributes
    ----------
    source
        In words.
    implausible
        How many of them are, by their table; ``None`` if there is none.
    """

    source: str
    implausible: int | None


@dataclass(frozen=True)
class AuditPicture:
    """Describe an image that is shown.

    Attributes
    ----------
    image
        Its name.
    predicted, probability
        The class and its probability, of the image as it is.
    becomes
        What is predicted with the realistic background.
    background_share
        Of the absolute relevance by LRP; ``None`` where no heatmap was made.
    background_area
        The part of the image that is background.
    original, changed, heatmap
        Files relative to the audit's folder; ``heatmap`` is ``None`` where none was made.
    opinions
        What LRP and other methods say of it; empty if no second opinion was asked.
    """

    image: str
    predicted: str
    probability: float
    becomes: str
    background_share: float | None
    background_area: float
    original: str
    changed: str
    heatmap: str | None
    opinions: list[SavedOpinion]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Hold an audit: of what, by what, and what was found.

    Attributes
    ----------
    name
        What the classifier is called.
    date
        By ISO 8601, in UTC.
    seconds
        How long it took.
    model, counts, masks
        What was audited.
    findings
        What was measured.
    fail_above
        The share of predictions that may change; ``None`` if none was given.
    explained
        How exactly relevance is carried through the network, in words; ``None`` without heatmaps.
    not_judged
        What could not be judged, in sentences.
    pictures
        The images whose prediction changes most.
    settings, environment
        How it was measured, and with what.
    folder
        Where its files are; not part of the file.
    """

    format: int = FORMAT
    name: str
    date: str
    seconds: float
    model: Model
    counts: Counts
    masks: Masks
    findings: AuditFindings
    fail_above: float | None
    explained: str | None
    not_judged: list[str]
    pictures: list[AuditPicture]
    settings: dict[str, Any]
    environment: dict[str, Any]
    folder: str = ""

    @property
    def limit(self) -> float:
        """The share of predictions that the verdict is about."""
        return TOLERATED if self.fail_above is None else self.fail_above

    @property
    def verdict(self) -> str:
        """Whether more change than :attr:`limit`: ``"above"``, ``"below"`` or ``"open"``."""
        return self.findings.verdict(self.limit)

    @property
    def failed(self) -> bool:
        """Whether more predictions change than was given as the limit."""
        changed = self.findings.changed.value
        return self.fail_above is not None and changed is not None and changed > self.fail_above

    @property
    def agreement(self) -> Agreement | None:
        """Whether the second opinion agrees with LRP; ``None`` if none was asked."""
        return agreement(
            PicturedImage(picture.image, picture.background_area, picture.opinions)
            for picture in self.pictures
        )

    def read(self, file: str) -> bytes:
        """Read one of the pictures' files.

        Raises
        ------
        ValueError
            If it is not in the folder.
        FileNotFoundError
            If it is missing.
        """
        path = (Path(self.folder) / file).resolve()
        if not path.is_relative_to(Path(self.folder).resolve()):
            raise ValueError(f"the picture {file!r} lies outside of {self.folder!r}")
        return path.read_bytes()

    def save(self) -> Path:
        """Write ``audit.json``, as ``audit.schema.json`` beside this module says."""
        content = asdict(self)
        del content["folder"]
        content["verdict"] = {"limit": self.limit, "result": self.verdict}
        found = self.agreement
        content["second_opinion"] = None if found is None else asdict(found)
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        return write_atomically(Path(self.folder) / AUDIT, text.encode())

    @classmethod
    def load(cls, folder: str | Path) -> Audit:
        """Read what :meth:`save` has written.

        Raises
        ------
        FileNotFoundError
            If the folder holds no audit.
        ValueError
            If it holds something else.
        """
        path = Path(folder) / AUDIT
        if not path.is_file():
            raise FileNotFoundError(f"there is no {path}; make one: faster-isnet audit")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.get("format") != FORMAT:
                raise ValueError(f"its format is {content.get('format')!r}, expected {FORMAT}")
            for part in ("verdict", "second_opinion"):  # they follow from the others
                del content[part]
            return construct(cls, {**content, "folder": str(folder)}, what="an audit")
        except (ValueError, AttributeError, KeyError) as error:
            raise ValueError(
                f"{str(path)!r} is no audit of this version ({error}); make it anew: "
                "faster-isnet audit"
            ) from error
