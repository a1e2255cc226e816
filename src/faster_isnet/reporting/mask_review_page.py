"""Write a page on which a person decides about masks: accept, reject, or draw again."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path, PurePosixPath

import pandas as pd

from faster_isnet.common.checks import check_range
from faster_isnet.common.files import write_atomically
from faster_isnet.common.spreadsheets import safe_cell
from faster_isnet.data import read_image, read_mask
from faster_isnet.data.masks import REVIEW_PAGE
from faster_isnet.plotting.thumbnails import outlined_thumbnail
from faster_isnet.reporting.pages import data_uri, environment, read_script, script_hash

MOST = 1000


@dataclass(frozen=True)
class ReviewedMask:
    """Describe a mask on the page.

    Attributes
    ----------
    image
        The image's path from the folder of the images.
    cells
        Image and mask as cells of CSV.
    reason
        Why it is implausible; empty if it is not.
    area, stability
        See :func:`~faster_isnet.segmentation.predict_masks`.
    uri
        The image with the outline of its mask.
    """

    image: str
    cells: str
    reason: str
    area: float
    stability: float
    uri: str


def write_mask_review(table: pd.DataFrame, masks: str | Path, most: int = MOST) -> Path:
    """Write the page ``review.html`` into a folder of masks.

    It shows the masks' outlines on the images, implausible and unsteady ones first, and saves the
    decisions as a table that ``faster-isnet fit --data.mask_review`` reads. It holds all that it
    shows, 10 to 15 KB a mask, and asks nothing of a network.

    Parameters
    ----------
    table
        What :func:`~faster_isnet.segmentation.predict_masks` returned.
    masks
        The folder it wrote to.
    most
        How many masks the page has at most, ≥ 1; it says how many it leaves out.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ValueError
        If an image or a mask cannot be read, or ``most`` is below 1.
    """
    check_range("most", most, 1)
    masks = Path(masks)
    drawn = table[table["mask"] != ""].sort_values(["plausible", "stability"], na_position="first")
    shown = list(_reviewed(drawn.head(most), masks))
    script = read_script("review.js")
    page = environment().get_template("review.html.jinja")
    content = page.render(
        masks=shown,
        total=len(drawn),
        implausible=int((~drawn["plausible"].astype(bool)).sum()),
        # Decisions that the browser keeps are those on these masks, and no others.
        key=hashlib.sha256("\n".join(mask.uri for mask in shown).encode()).hexdigest(),
        script=script,
        script_hash=script_hash(script),
    )
    return write_atomically(masks / REVIEW_PAGE, content.encode())


def _reviewed(table: pd.DataFrame, masks: Path) -> Iterator[ReviewedMask]:
    for row in table.itertuples():
        image = PurePosixPath(row.mask).with_suffix(Path(row.image).suffix).as_posix()
        cells = StringIO()
        csv.writer(cells, lineterminator="").writerow([safe_cell(image), safe_cell(row.mask)])
        picture = outlined_thumbnail(read_image(Path(row.image)), read_mask(masks / row.mask))
        yield ReviewedMask(
            image,
            cells.getvalue(),
            row.reason,
            row.area,
            row.stability,
            data_uri(picture, "jpeg"),
        )
