"""Write tables as Markdown."""

from __future__ import annotations

from faster_isnet.reporting.result_tables import Cell, Table


def markdown_table(table: Table) -> str:
    r"""Return a table as Markdown, with its caption above it.

    Examples
    --------
    >>> from faster_isnet.reporting.result_tables import Column, Row
    >>> table = Table("Scores", [Column("Name"), Column("F1")], [Row([Cell("a|b"), Cell("50 %")])])
    >>> print(markdown_table(table))
    Scores
    <BLANKLINE>
    | Name | F1 |
    | --- | --- |
    | a\|b | 50 % |
    """
    heads = [column.title for column in table.columns]
    lines = [_line(heads), _line(["---"] * len(heads))]
    lines += [_line([_text(cell) for cell in row.cells]) for row in table.rows]
    return f"{table.caption}\n\n" + "\n".join(lines)


def _line(texts: list[str]) -> str:
    return f"| {' | '.join(_escaped(text) for text in texts)} |"


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _text(cell: Cell) -> str:
    text = f"{cell.text} ({cell.detail})" if cell.detail else cell.text
    if cell.improves is None:
        return text
    return f"{text} {'better' if cell.improves else 'worse'}"
