"""Read samples from a table, CSV or Parquet."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa

from faster_isnet.common.checks import TASKS, check_choice
from faster_isnet.common.files import check_file
from faster_isnet.data.masks import Boxes
from faster_isnet.data.samples import SPLITS, Sample, check_distinct, class_index, visible

TABLE_SUFFIXES = (".csv", ".parquet")
_LABEL_SEPARATOR = "|"
_MISSING = ("nan", "NaN", "None", "<NA>", "NaT")  # as pandas writes missing values
_MAYBE_MISSING = ("NA", "N/A", "n/a", "#N/A", "NULL", "null")  # as others write them


def from_table(
    path: str | Path,
    root: str | Path | None = None,
    image: str = "image",
    label: str | Sequence[str] | None = "label",
    mask: str = "mask",
    split: str = "split",
    group: str = "group",
    attribute: str = "attribute",
    subgroups: Sequence[str] = (),
    boxes: Sequence[str] = (),
    class_names: Sequence[str] | None = None,
    task: str | None = None,
) -> tuple[list[Sample], list[str]]:
    """Read samples from a table with one row per image.

    Parameters
    ----------
    path
        A ``.csv`` or ``.parquet`` file. Empty cells are missing values, and so are ``nan``,
        ``NaN``, ``None``, ``<NA>`` and ``NaT``, as pandas writes them.
    root
        Folder that relative paths start from. By default the table's folder.
    image
        The column of the images' paths.
    label
        The column of the labels; multiple labels in a cell are separated by ``|``. A list names
        columns of 0 and 1, one for each class. ``None`` reads no labels.
    mask, split, group, attribute
        Optional columns, see :class:`~faster_isnet.data.samples.Sample`.
    subgroups
        Columns by whose values images are scored apart, such as ``["site", "sex"]``; an image
        whose cell is empty is in none of that column.
    boxes
        Four columns with the left, top, width and height in pixels of a box that is used as the
        mask. For several boxes, repeat the image in one row per box.
    class_names
        Names of the classes by index, to match other data. By default all in the table, sorted
        (numbers by value), or the names in ``label``.
    task
        ``"multiclass"`` or ``"multilabel"``. By default the latter if a cell has several
        labels; an empty cell then means that no class applies.

    Returns
    -------
    tuple
        The samples, in the table's order, and the names of the classes.

    Raises
    ------
    FileNotFoundError
        If there is no such table.
    ValueError
        If it cannot be read, is empty, lacks a column, has a row with more or fewer cells than the
        header, a cell is invalid, or labels, groups or attributes differ only in how they are
        written (``1`` and ``1.0``). Row numbers in messages start with 1, below the header.
    """
    path = Path(path)
    root = path.parent if root is None else Path(root)
    table = read_cells(path)
    if len(boxes) not in (0, 4):
        raise ValueError(
            f"boxes must name four columns, left, top, width and height, got {list(boxes)}"
        )
    label_columns = [label] if isinstance(label, str) else list(label or ())
    subgroups = [subgroups] if isinstance(subgroups, str) else list(subgroups)
    _check_columns(table, path, [image, *label_columns, *boxes], subgroups)
    table = _stripped(table, [image, mask, *boxes])
    rows = [f"row {row} of {str(path)!r}" for row in range(1, len(table) + 1)]
    indices: list[int | tuple[int, ...] | None] = [None] * len(table)
    if isinstance(label, str):
        _check_names(table[label], rows, class_names or ())
        names, indices = _named_labels(table[label], rows, class_names, task)
    elif label is not None:
        names, indices = _binary_labels(table[label_columns], rows, class_names)
    else:
        names = list(class_names or ())
    if class_names is None:
        check_distinct(names, f"classes of {str(path)!r}")
    named = [(group, "groups"), (attribute, "attributes")]
    for column, kind in (*named, *((each, f"values of {each!r}") for each in subgroups)):
        if column in table:
            _check_names(table[column], rows, ())
            check_distinct(table[column].unique(), f"{kind} of {str(path)!r}", fold=_whole_number)
    samples = [
        Sample(
            _on_disk(root / _required(cells[image], f"the image in {row}")),
            label=index,
            mask=_on_disk(root / cells[mask]) if cells.get(mask) else None,
            split=_split_of_cell(cells.get(split, ""), row),
            group=cells.get(group) or None,
            attribute=cells.get(attribute) or None,
            subgroups=tuple((each, cells[each]) for each in subgroups if cells[each]),
        )
        for row, index, cells in zip(rows, indices, table.to_dict("records"), strict=True)
    ]
    return (_join_boxes(samples, table[list(boxes)], rows) if boxes else samples), names


def _check_columns(
    table: pd.DataFrame, path: Path, needed: Sequence[str], subgroups: Sequence[str]
) -> None:
    """Raise ``ValueError`` if a table lacks a column, or a column of subgroups is named twice."""
    there = ", ".join(map(repr, table))
    for column in needed:
        if column not in table:
            raise ValueError(
                f"{str(path)!r} has no column {column!r}, it has {there}; say which it is, or add "
                "it"
            )
    if len(set(subgroups)) < len(subgroups):
        raise ValueError(f"subgroups names a column twice, {subgroups}; name each once")
    for column in subgroups:
        if column not in table:
            raise ValueError(
                f"{str(path)!r} has no column {column!r} for subgroups, it has {there}; name "
                "columns that all tables of the data have"
            )


def read_cells(path: Path) -> pd.DataFrame:
    """Read all cells of a CSV or Parquet file as strings; missing values become empty strings.

    Raises
    ------
    FileNotFoundError
        If it is missing.
    ValueError
        If it cannot be read, or has no rows.
    """
    check_choice(f"kind of table {str(path)!r}:", path.suffix.lower(), TABLE_SUFFIXES)
    check_file(path, "table")
    try:
        if path.suffix.lower() == ".csv":
            table = _read_csv(path)
        else:
            # Arrow's types, since pandas turns integers with missing values into floats.
            table = pd.read_parquet(path, dtype_backend="pyarrow")
            for name, dtype in table.dtypes.items():
                if pa.types.is_nested(dtype.pyarrow_dtype):
                    raise ValueError(
                        f"its column {name!r} holds {dtype.pyarrow_dtype}; leave it out, or write "
                        "text or numbers"
                    )
            table = table.astype("string").astype(object).where(table.notna(), "")
    except Exception as error:  # of any type, from pandas and pyarrow
        raise ValueError(
            f"cannot read the table {str(path)!r} ({error}); save it anew, as CSV with commas in "
            "UTF-8, or as Parquet"
        ) from error
    if table.empty:
        raise ValueError(f"the table {str(path)!r} has no rows below its header; add some")
    return table


def _read_csv(path: Path) -> pd.DataFrame:
    """Read a CSV file; pandas would shift rows that have a cell more than the header."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)
        header = next(rows, [])
        if len(header) == 1 and ("\t" in header[0] or ";" in header[0]):
            raise ValueError(f"its header is the one cell {header[0]!r}; put commas between cells")
        if not header or len(set(header)) < len(header):
            raise ValueError(f"its header is {header}; give each column a name of its own")
        cells = []
        for row in rows:
            if row and len(row) != len(header):
                raise ValueError(
                    f"line {rows.line_num} has {len(row)} cells, but the header {len(header)}: "
                    f"{','.join(row)[:80]!r}; quote cells with commas in them, and delete commas "
                    "at the end"
                )
            if any("\0" in cell for cell in row):
                raise ValueError(f"line {rows.line_num} holds a NUL byte: {','.join(row)[:80]!r}")
            if row:
                cells.append(row)
    return pd.DataFrame(cells, columns=header, dtype=str)


def _stripped(table: pd.DataFrame, paths: Sequence[str]) -> pd.DataFrame:
    """Make cells that read the same equal, but for paths; empty those of missing values."""
    for column in table:
        cells = table[column].where(~table[column].isin(_MISSING), "")
        if column not in paths:
            cells = cells.map(lambda cell: unicodedata.normalize("NFC", cell.strip()))
        table[column] = cells
    return table


def _check_names(cells: pd.Series[str], rows: list[str], known: Sequence[str]) -> None:
    """Raise an error if a cell may be a missing value as well as a name."""
    for row, cell in zip(rows, cells, strict=True):
        if cell in _MAYBE_MISSING and cell not in known:
            raise ValueError(
                f"{row} has {cell!r} for {cells.name!r}, which may be a missing value or a name; "
                "leave the cell empty if it is missing, or write another name"
            )


def _on_disk(path: Path) -> Path:
    """Return the name that a file has on the disk: macOS decomposes letters with accents."""
    if str(path).isascii() or path.exists():
        return path
    forms = (Path(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD"))
    return next((other for other in forms if other.exists()), path)


def _required(cell: str, what: str) -> str:
    if not cell:
        raise ValueError(f"{what} is not named; fill the cell or delete the row")
    return cell


def _split_of_cell(cell: str, row: str) -> str | None:
    return check_choice(f"split in {row}:", cell, SPLITS) if cell else None


def _named_labels(
    cells: pd.Series[str], rows: list[str], class_names: Sequence[str] | None, task: str | None
) -> tuple[list[str], list[int | tuple[int, ...] | None]]:
    by_row = [
        [name.strip() for name in cell.split(_LABEL_SEPARATOR) if name.strip()] for cell in cells
    ]
    multiple = next((i for i, labels in enumerate(by_row) if len(labels) > 1), None)
    if task is None:
        task = TASKS[multiple is not None]
    if check_choice("task", task, TASKS) == "multiclass" and multiple is not None:
        raise ValueError(
            f"{rows[multiple]} has several labels, {cells[multiple]!r}, but the task is "
            "multiclass; keep one, or make it multilabel"
        )
    if class_names is None:
        class_names = sorted({label for labels in by_row for label in labels}, key=_by_value)
    known = [
        [class_index(label, class_names, row) for label in labels]
        for row, labels in zip(rows, by_row, strict=True)
    ]
    if task == "multiclass":
        return list(class_names), [labels[0] if labels else None for labels in known]
    every = range(len(class_names))
    return list(class_names), [tuple(int(c in labels) for c in every) for labels in known]


def _by_value(name: str) -> tuple[float, str]:
    # Integers first, by value, then names.
    return (float(name) if name.isdecimal() else float("inf"), name)


def _whole_number(name: str) -> str:
    # Not 007 and 7, which are different patients.
    return visible(name).removesuffix(".0")


def _binary_labels(
    table: pd.DataFrame, rows: list[str], class_names: Sequence[str] | None
) -> tuple[list[str], list[int | tuple[int, ...] | None]]:
    names = list(table.columns)
    if class_names is not None and list(class_names) != names:
        raise ValueError(f"the columns of labels are {names}, but the classes {list(class_names)}")
    values = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
    for name in names:
        for row, cell in zip(rows, table[name], strict=True):
            if cell.lower() not in values:
                raise ValueError(f"{row} has {cell!r} for {name!r}; it must be 0 or 1")
    return names, [
        tuple(values[c.lower()] for c in cells) for cells in table.itertuples(index=False)
    ]


def _join_boxes(samples: list[Sample], table: pd.DataFrame, rows: list[str]) -> list[Sample]:
    """Merge the rows of each image into one sample with all boxes."""
    joined: dict[str, Sample] = {}
    for sample, cells, row in zip(samples, table.itertuples(index=False), rows, strict=True):
        boxed = replace(sample, mask=_box(list(cells), row) or sample.mask)
        before = joined.get(sample.name)
        if before is None:
            joined[sample.name] = boxed
            continue
        if replace(before, mask=None) != replace(sample, mask=None):
            raise ValueError(
                f"{row} differs from an earlier row of {sample.name!r}; rows of one image "
                "may differ in their boxes only"
            )
        if not isinstance(before.mask, Boxes) or not isinstance(boxed.mask, Boxes):
            raise ValueError(
                f"{row} is one of several of {sample.name!r}, but not all have a box; leave out "
                "those without"
            )
        joined[sample.name] = replace(before, mask=Boxes(before.mask.boxes + boxed.mask.boxes))
    return list(joined.values())


def _box(cells: list[str], row: str) -> Boxes | None:
    if not any(cells):
        return None
    try:
        left, top, width, height = map(float, cells)
    except ValueError:
        left, top, width, height = (float("nan"),) * 4
    if not (width > 0 and height > 0 and max(map(abs, (left, top, width, height))) < float("inf")):
        raise ValueError(
            f"{row} has the box {cells}; give left, top, width and height in pixels, the latter "
            "two above 0, or leave all four cells empty"
        )
    return Boxes(((left, top, width, height),))
