from __future__ import annotations

import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from faster_isnet.data.masks import Boxes
from faster_isnet.data.sample_tables import from_table
from faster_isnet.data.samples import Sample

quick = settings(max_examples=25)
both_kinds = pytest.mark.parametrize("suffix", [".csv", ".parquet"])
words = st.text(st.characters(categories=["L", "N"], codec="utf-8"), min_size=1, max_size=4).filter(
    lambda word: word.lower() not in {"na", "nan", "none", "null"}
)


def write(folder: Path, suffix: str = ".csv", **columns: list) -> Path:
    path = folder / f"table{suffix}"
    table = pd.DataFrame(columns)
    table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
    return path


@both_kinds
def test_all_columns(tmp_path, suffix):
    path = write(
        tmp_path,
        suffix,
        image=["a.png", "sub/b.png", "c.png"],
        label=["dog", "cat", "dog"],
        mask=["m.png", None, None],
        split=["train", None, "test"],
        group=["007", "7", None],
    )
    samples, names = from_table(path)
    assert names == ["cat", "dog"]
    assert samples == [
        Sample(tmp_path / "a.png", 1, tmp_path / "m.png", "train", "007"),
        Sample(tmp_path / "sub/b.png", 0, None, None, "7"),
        Sample(tmp_path / "c.png", 1, None, "test", None),
    ]


@both_kinds
def test_image_and_label_suffice(tmp_path, suffix):
    path = write(tmp_path, suffix, image=["a.png", "/b.png"], label=[10, 9])
    samples, names = from_table(path, root="elsewhere")
    assert names == ["9", "10"]
    assert samples == [Sample(Path("elsewhere/a.png"), 1), Sample(Path("/b.png"), 0)]


@both_kinds
def test_numbers_with_gaps_stay_whole(tmp_path, suffix):
    groups = pd.array([7, None], dtype="Int64")
    path = write(tmp_path, suffix, image=["a.png", "b.png"], label=["x", "y"], group=groups)
    assert [s.group for s in from_table(path)[0]] == ["7", None]


def _value(name):
    try:
        return float(name)
    except ValueError:
        return unicodedata.normalize("NFC", name).casefold()


@quick
@given(rows=st.lists(st.sets(words, max_size=3), min_size=1, max_size=6))
def test_multi_label_cells(tmp_path_factory, rows):
    every = set().union(*rows)
    assume(len({_value(name) for name in every}) == len(every))  # else they are refused
    path = write(
        tmp_path_factory.mktemp("labels"),
        image=[f"{i}.png" for i in range(len(rows))],
        label=["|".join(sorted(row)) for row in rows],
    )
    samples, names = from_table(path, task="multilabel")
    rows = [{unicodedata.normalize("NFC", name) for name in row} for row in rows]
    assert set(names) == set().union(*rows)
    for sample, row in zip(samples, rows, strict=True):
        assert {name for name, applies in zip(names, sample.label, strict=True) if applies} == row


def test_the_task_is_seen(tmp_path):
    several = write(tmp_path, image=["a.png", "b.png"], label=["x | y", "x"])
    assert [s.label for s in from_table(several)[0]] == [(1, 1), (1, 0)]
    single = write(tmp_path, image=["a.png", "b.png"], label=["x", ""])
    assert [s.label for s in from_table(single)[0]] == [0, None]


@both_kinds
def test_columns_of_labels(tmp_path, suffix):
    path = write(tmp_path, suffix, image=["a.png", "b.png"], flu=[1, 0], cold=[True, False])
    samples, names = from_table(path, label=["flu", "cold"])
    assert names == ["flu", "cold"]
    assert [s.label for s in samples] == [(1, 1), (0, 0)]


def test_no_labels(tmp_path):
    path = write(tmp_path, image=["a.png"], mask=["m.png"])
    samples, names = from_table(path, label=None)
    assert names == []
    assert samples == [Sample(tmp_path / "a.png", None, tmp_path / "m.png")]


@both_kinds
def test_boxes(tmp_path, suffix):
    path = write(
        tmp_path,
        suffix,
        image=["a.png", "b.png", "a.png"],
        label=["sick", "well", "sick"],
        x=[1, None, 5.5],
        y=[2, None, 0],
        width=[3, None, 1],
        height=[4, None, 1],
    )
    samples, _ = from_table(path, boxes=["x", "y", "width", "height"])
    assert samples == [
        Sample(tmp_path / "a.png", 0, Boxes(((1, 2, 3, 4), (5.5, 0, 1, 1)))),
        Sample(tmp_path / "b.png", 1),
    ]


def test_missing_values_as_pandas_writes_them_are_missing(tmp_path):
    missing = ["nan", "NaN", "None", "<NA>", "NaT", ""]
    path = write(
        tmp_path,
        image=[f"{i}.png" for i in range(7)],
        label=["cat", *missing],
        mask=["m.png", *missing],
        group=["p", *missing],
    )
    samples, names = from_table(path)
    assert names == ["cat"]
    assert {(s.label, s.mask, s.group) for s in samples[1:]} == {(None, None, None)}


def test_groups_and_labels_that_read_the_same_are_one(tmp_path):
    path = write(tmp_path, image=["a.png", "b.png"], label=["x", " x"], group=["p1", " p1"])
    samples, names = from_table(path)
    assert names == ["x"]
    assert {s.group for s in samples} == {"p1"}
    composed, decomposed = "K\u00e4se", "Ka\u0308se"
    path = write(tmp_path, image=["a.png", "b.png"], label=[composed, decomposed])
    assert from_table(path)[1] == [composed]


class TestFaults:
    @pytest.mark.parametrize(
        "rows",
        [
            "0,a.png,cat,m.png",
            "a.png,cat,m.png,",
            "a.png,cat,m.png\nb.png,dog,n.png,x",
            "a.png,m.png",
        ],
    )
    def test_a_row_with_more_or_fewer_cells_than_the_header(self, tmp_path, rows):
        path = tmp_path / "table.csv"
        path.write_text(f"image,label,mask\n{rows}\n")
        line = 1 + len(rows.splitlines())
        cells = len(rows.splitlines()[-1].split(","))
        with pytest.raises(
            ValueError, match=rf"table.csv.*line {line} has {cells} cells, but the header 3"
        ):
            from_table(path)

    def test_a_quote_that_is_not_closed(self, tmp_path):
        path = tmp_path / "table.csv"
        path.write_text('image,label\n"a.png,cat\nb.png,dog\n')
        with pytest.raises(ValueError, match=r"cannot read the table .*table.csv"):
            from_table(path)

    def test_two_columns_of_one_name(self, tmp_path):
        path = tmp_path / "table.csv"
        path.write_text("image,label,label\na.png,cat,dog\n")
        with pytest.raises(ValueError, match=r"table.csv.*header is \['image', 'label', 'label'\]"):
            from_table(path)

    @pytest.mark.parametrize("labels", [["1", "1.0"], ["True", "true"], ["Cat", "cat"]])
    def test_labels_that_differ_only_in_how_they_are_written(self, tmp_path, labels):
        path = write(tmp_path, image=["a.png", "b.png"], label=labels)
        with pytest.raises(ValueError, match=r"classes of .*table.csv.*write them the same"):
            from_table(path)
        assert from_table(path, class_names=labels)[1] == labels

    def test_groups_that_differ_only_in_how_they_are_written(self, tmp_path):
        path = write(tmp_path, image=["a.png", "b.png"], label=["x", "y"], group=["7", "7.0"])
        with pytest.raises(ValueError, match=r"groups of .*table.csv.* '7' and '7.0' differ only"):
            from_table(path)

    def test_no_table(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no table .*gone.csv.*correct its name"):
            from_table(tmp_path / "gone.csv")

    def test_unknown_kind(self, tmp_path):
        with pytest.raises(ValueError, match=r"table.xlsx.*'.csv', '.parquet'"):
            from_table(tmp_path / "table.xlsx")

    @both_kinds
    @pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01,\n1,2,3"])
    def test_unreadable(self, tmp_path, suffix, content):
        path = tmp_path / f"broken{suffix}"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"cannot read the table .*broken.*save it anew"):
            from_table(path)

    def test_empty(self, tmp_path):
        with pytest.raises(ValueError, match=r"table.csv' has no rows"):
            from_table(write(tmp_path, image=[], label=[]))

    @pytest.mark.parametrize("column", ["image", "label"])
    def test_missing_column(self, tmp_path, column):
        columns = {"image": ["a.png"], "label": ["x"], "other": [1]}
        del columns[column]
        with pytest.raises(
            ValueError, match=rf"table.csv' has no column '{column}', it has .*'other'"
        ):
            from_table(write(tmp_path, **columns))

    def test_no_image(self, tmp_path):
        path = write(tmp_path, image=["a.png", None], label=["x", "y"])
        with pytest.raises(ValueError, match=r"image in row 2 of .*table.csv.*fill the cell"):
            from_table(path)

    def test_unknown_split(self, tmp_path):
        path = write(tmp_path, image=["a.png"], label=["x"], split=["training"])
        with pytest.raises(
            ValueError, match=r"split in row 1 of .*table.csv.*did you mean 'train'"
        ):
            from_table(path)

    def test_unknown_class(self, tmp_path):
        path = write(tmp_path, image=["a.png"], label=["x"])
        with pytest.raises(
            ValueError, match=r"class of row 1 of .*table.csv.*unknown|unknown class of"
        ):
            from_table(path, class_names=["y", "z"])

    def test_multi_label_cells_in_multi_class_data(self, tmp_path):
        path = write(tmp_path, image=["a.png"], label=["x|y"])
        with pytest.raises(ValueError, match=r"row 1 of .*has several labels, 'x\|y'.*multilabel"):
            from_table(path, task="multiclass")

    @pytest.mark.parametrize("cell", [2, -1, None, "yes"])
    def test_columns_of_labels_that_are_not_binary(self, tmp_path, cell):
        path = write(tmp_path, image=["a.png", "b.png"], flu=[1, cell])
        with pytest.raises(ValueError, match=r"row 2 of .*for 'flu'; it must be 0 or 1"):
            from_table(path, label=["flu"])

    def test_other_columns_than_the_classes(self, tmp_path):
        path = write(tmp_path, image=["a.png"], flu=[1])
        with pytest.raises(
            ValueError, match=r"columns of labels are \['flu'\], but the classes \['x'\]"
        ):
            from_table(path, label=["flu"], class_names=["x"])

    @pytest.mark.parametrize(
        "box", [(1, 2, 3, None), (1, 2, 0, 4), (1, 2, "wide", 4), ("inf", 0, 1, 1)]
    )
    def test_no_box(self, tmp_path, box):
        columns = {name: [value] for name, value in zip("xywh", box, strict=True)}
        path = write(tmp_path, image=["a.png"], label=["x"], **columns)
        with pytest.raises(ValueError, match=r"row 1 of .*table.csv' has the box .*in pixels"):
            from_table(path, boxes=list("xywh"))

    def test_rows_of_an_image_that_differ(self, tmp_path):
        box = {name: [1, 1] for name in "xywh"}
        path = write(tmp_path, image=["a.png", "a.png"], label=["p", "q"], **box)
        with pytest.raises(ValueError, match=r"row 2 of .*differs from an earlier row of .*a.png"):
            from_table(path, boxes=list("xywh"))

    def test_three_columns_for_boxes(self, tmp_path):
        path = write(tmp_path, image=["a.png"], label=["x"])
        with pytest.raises(ValueError, match="boxes must name four columns"):
            from_table(path, boxes=["x", "y", "w"])


@both_kinds
def test_columns_of_subgroups(tmp_path, suffix):
    path = write(
        tmp_path, suffix, image=["a.png", "b.png"], label=["x", "y"], sex=["f", None], site=[1, 2]
    )
    samples, _ = from_table(path, subgroups=["sex", "site"])
    assert [s.subgroups for s in samples] == [(("sex", "f"), ("site", "1")), (("site", "2"),)]
    assert from_table(path, subgroups="sex")[0][0].subgroups == (("sex", "f"),)
    assert from_table(path)[0][0].subgroups == ()
    with pytest.raises(ValueError, match="no column 'age' for subgroups, it has 'image', 'label'"):
        from_table(path, subgroups=["age"])
    with pytest.raises(ValueError, match="names a column twice"):
        from_table(path, subgroups=["sex", "sex"])


def test_values_of_subgroups_that_are_written_in_two_ways(tmp_path):
    path = write(tmp_path, image=["a.png", "b.png"], label=["x", "y"], site=["North", "North "])
    assert from_table(path, subgroups=["site"])[0][1].subgroups == (("site", "North"),)
    path = write(tmp_path, image=["a.png", "b.png"], label=["x", "y"], site=["1", "1.0"])
    with pytest.raises(ValueError, match=r"values of 'site' .* '1' and '1\.0' differ only"):
        from_table(path, subgroups=["site"])
