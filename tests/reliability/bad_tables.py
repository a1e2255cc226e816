"""Tables that are refused, and what the error names."""

from __future__ import annotations

import gzip
import os
from typing import Any

import numpy as np
import tifffile

from reliability.table_files import (
    BOXED,
    BOXES,
    GROUPED,
    HTML,
    MASKED,
    SPLIT,
    THIRDS,
    Build,
    after,
    parquet,
    square,
    table,
    with_bytes,
    with_file,
)

# What is written, options, and what the error says: the file and the value, and the cure.
BAD: dict[str, tuple[Build | str | bytes, dict[str, Any], str, str]] = {
    # the file
    "no file": (lambda _: None, {}, "no table .*table.csv", "correct its name"),
    "a folder": (
        after(lambda f: (f / "table.csv").mkdir(), None),
        {},
        "table.csv.*not a file",
        "name",
    ),
    "a pipe": (
        after(lambda f: os.mkfifo(f / "table.csv"), None),
        {},
        "table.csv.*not a file",
        "name",
    ),
    "a link to itself": (
        *(after(lambda f: (f / "table.csv").symlink_to(f / "table.csv"), None), {}),
        *("table.csv", "correct its name"),
    ),
    "an empty file": ("", {}, "table.csv", "save it anew|add some"),
    "empty lines": ("\n\n\n", {}, "table.csv", "save it anew|add some"),
    "a header alone": ("image,label\n", {}, "table.csv.* no rows", "add some"),
    "a picture": (lambda f: (f / "0.png").read_bytes(), {}, "table.csv", "UTF-8"),
    "compressed": (gzip.compress(table().encode()), {}, "table.csv", "UTF-8"),
    "a page": (HTML, {}, "table.csv", "column 'image'|add some"),
    "json": ('{"image": "0.png", "label": "cat"}\n', {}, "table.csv", "add"),
    "utf-16": (table().encode("utf-16"), {}, "table.csv", "UTF-8"),
    "utf-16 without its mark": (table().encode("utf-16-le"), {}, "table.csv", "UTF-8"),
    "latin-1": (table("0.png,K\u00e4se").encode("latin-1"), {}, "table.csv.*0xe4", "UTF-8"),
    "a nul": (table("0.png,c\0at"), {}, "table.csv.*NUL", "save it anew"),
    "a nul in a path": (table("0\0.png,cat"), {}, "table.csv.*NUL", "save it anew"),
    "an open quote": (table('"0.png,cat'), {}, "table.csv", "save it anew"),
    "text behind a quote": (table('"0.png"x,cat'), {}, "table.csv", "save it anew"),
    "a huge cell": (table("0.png," + "x" * 200_000), {}, "table.csv", "save it anew"),
    "another suffix": (
        *(after(lambda f: (f / "table.tsv").write_text(table()), None), {"source": "table.tsv"}),
        *("table.tsv", "convert it"),
    ),
    "labels that are lists": (
        after(parquet, None),
        {"source": "table.parquet"},
        "table.parquet.*column 'label'",
        "text or numbers",
    ),
    # the columns
    "tabs": (table().replace(",", "\t"), {}, r"table.csv.*'image\\tlabel'", "commas"),
    "semicolons": (table().replace(",", ";"), {}, "table.csv.*'image;label'", "commas"),
    "no header": (table(header="0.png,cat"), {}, "table.csv.*no column 'image'.*'0.png'", "add it"),
    "another case": (
        table(header="Image,Label"),
        {},
        "table.csv.*no column 'image'.*'Image'",
        "say which",
    ),
    "no labels": (
        table(header="image,diagnosis"),
        {},
        "table.csv.*no column 'label'.*'diagnosis'",
        "say which",
    ),
    "a column twice": (
        table("0.png,cat,x", header="image,label,label", rest=",x"),
        {},
        "table.csv.*'label', 'label'",
        "a name of its own",
    ),
    "a comment above": (
        "# of 2024\n" + table(),
        {},
        "table.csv.*line 2 has 2 cells.*header 1",
        "quote cells",
    ),
    "a cell more": (table("0.png,cat,x"), {}, "table.csv.*line 2 has 3 cells", "quote cells"),
    "a cell less": (table("0.png"), {}, "table.csv.*line 2 has 1 cells", "quote cells"),
    "spaces as a row": (
        table("0.png,cat", "   "),
        {},
        "table.csv.*line 3 has 1 cells",
        "quote cells",
    ),
    # labels
    "a label is empty": (table("0.png,"), {}, "0.png", "fill it in"),
    "all labels are empty": (
        table().replace("cat", "").replace("dog", ""),
        {},
        "table.csv. has no labels",
        "fill in",
    ),
    "a label is only a separator": (table("0.png,|"), {}, "0.png", "fill it in"),
    "a label of R's missing value": (
        table("0.png,NA"),
        {},
        "row 1 of .*table.csv.*'NA'",
        "leave the cell empty",
    ),
    "a label of a spreadsheet's error": (
        table("0.png,#N/A"),
        {},
        "row 1 of .*table.csv.*'#N/A'",
        "leave the cell empty",
    ),
    "a label of SQL's missing value": (
        table("0.png,NULL"),
        {},
        "row 1 of .*table.csv.*'NULL'",
        "leave the cell empty",
    ),
    "1 and 1.0": (
        table("0.png,1", "1.png,1.0"),
        {},
        "table.csv.*'1' and '1.0'",
        "write them the same",
    ),
    "1 and 01": (
        table("0.png,1", "1.png,01"),
        {},
        "table.csv.*'0?1' and '0?1'",
        "write them the same",
    ),
    "True and true": (
        table("0.png,True", "1.png,true"),
        {},
        "table.csv.*'True' and 'true'",
        "write them the same",
    ),
    "another case in a label": (
        table("0.png,Cat"),
        {},
        "table.csv.*'Cat' and 'cat'",
        "write them the same",
    ),
    "a letter of no width": (
        table("0.png,cat\u200b"),
        {},
        r"table.csv.*'cat.u200b'",
        "write them the same",
    ),
    "two spaces within a label": (
        table("0.png,a cat", "2.png,a  cat"),
        {},
        "table.csv.*'a  cat'",
        "write them the same",
    ),
    "a class of one image": (table("0.png,bird"), {}, "'bird'.*0.png", "add samples"),
    "labels that are names of images": (
        "image,label\n" + "".join(f"{i}.png,{i}.png\n" for i in range(12)),
        *({}, "class '[0-9]+.png'", "add samples"),
    ),
    "one class": (table().replace("dog", "cat"), {}, "table.csv.*'cat'", "two classes"),
    "a class that others lack": (
        table("0.png,bird"),
        {"class_names": ["cat", "dog"]},
        "row 1 of .*table.csv.*'bird'",
        "Known: 'cat', 'dog'",
    ),
    "labels of 0, 1 and 2": (
        table("0.png,2,0", header="image,cat,dog")
        .replace(",cat", ",1,0")
        .replace("g,dog", "g,0,1")
        .replace("image,1,0", "image,cat"),
        {"fields": {"label": ["cat", "dog"]}},
        *("row 1 of .*table.csv.*'2' for 'cat'", "0 or 1"),
    ),
    # images
    "no path": (table(",cat"), {}, "image in row 1 of .*table.csv", "fill the cell"),
    "a path that pandas found missing": (
        table("nan,cat"),
        {},
        "image in row 1 of .*table.csv",
        "fill the cell",
    ),
    "no image": (table("gone.png,cat"), {}, "gone.png", "correct its name"),
    "an image in another case": (table("0.PNG,cat"), {}, "0.PNG", "correct its name"),
    "a path with a space": (table(" 0.png,cat"), {}, " 0.png", "correct its name"),
    "a path with backslashes": (table("sub\\0.png,cat"), {}, r"sub\\\\0.png", "correct its name"),
    "a path from home": (table("~/0.png,cat"), {}, "~/0.png", "correct its name"),
    "an address": (
        table("https://example.org/0.png,cat"),
        {},
        "example.org/0.png",
        "correct its name",
    ),
    "a path of 5000 letters": (table("x" * 5000 + ".png,cat"), {}, "xxx", "correct its name"),
    "a folder for an image": (
        after(lambda f: (f / "d.png").mkdir(), table("d.png,cat")),
        {},
        "d.png' is not a file",
        "name one",
    ),
    "a pipe for an image": (
        after(lambda f: os.mkfifo(f / "p.png"), table("p.png,cat")),
        {},
        "p.png' is not a file",
        "name one",
    ),
    "an empty image": (with_bytes("e.png", b"", table("e.png,cat")), {}, "e.png", "mend the file"),
    "half of an image": (
        lambda f: with_bytes("h.png", (f / "0.png").read_bytes()[:120], table("h.png,cat"))(f),
        *({}, "h.png", "mend the file"),
    ),
    "a table for an image": (table("table.csv,cat"), {}, "table.csv", "mend the file"),
    "an image twice with two labels": (
        table("1.png,cat"),
        {},
        "1.png and .*1.png",
        "Leave out one",
    ),
    "an image in two splits by two paths": (
        *(f"{SPLIT}\n{THIRDS}./0.png,cat,test\n", {}),
        *("0.png and .*0.png|0.png", "Leave out one"),
    ),
    # splits and groups
    "an unknown split": (
        table("0.png,cat,training", header=SPLIT, rest=","),
        {},
        "row 1 of .*table.csv.*'training'",
        "did you mean 'train'",
    ),
    "a split in another case": (
        table("0.png,cat,Train", header=SPLIT, rest=","),
        {},
        "row 1 of .*table.csv.*'Train'",
        "did you mean 'train'",
    ),
    "a split that is missing": (
        f"{SPLIT}\n" + THIRDS.replace("0.png,cat,train", "0.png,cat,"),
        {},
        "0.png' has no split",
        "give all a split",
    ),
    "splits without training": (
        f"{SPLIT}\n" + THIRDS.replace("train", "val"),
        {},
        "no images to train on",
        "add",
    ),
    "a group in two splits": (
        "image,label,split,group\n"
        + "".join(f"{row},p{i % 4}\n" for i, row in enumerate(THIRDS.split())),
        *({}, "group 'p0'.*'train' and 'val'.*4.png", "put all of a group into one"),
    ),
    "groups 7 and 7.0": (
        table("0.png,cat,7", "1.png,dog,7.0", header=GROUPED, rest=","),
        {},
        "table.csv.*'7' and '7.0'",
        "write them the same",
    ),
    "a group of R's missing value": (
        table("0.png,cat,NA", header=GROUPED, rest=",NA"),
        {},
        "row 1 of .*table.csv.*'NA'",
        "leave the cell empty",
    ),
    "all in one group": (
        table("0.png,cat,p", header=GROUPED, rest=",p"),
        {},
        "class 'cat'.*0.png",
        "add samples of other groups",
    ),
    # masks and boxes
    "no mask": (
        table("0.png,cat,gone.png", header=MASKED, rest=","),
        {},
        "gone.png",
        "correct its name",
    ),
    "a mask of another size": (
        with_file("m.png", square(side=9), table("0.png,cat,m.png", header=MASKED, rest=",")),
        {},
        "0.png.*8 rows.*m.png.*9 rows",
        "draw the mask",
    ),
    "a label map": (
        with_file(
            "m.png",
            np.arange(64, dtype=np.uint8).reshape(8, 8) % 4,
            table("0.png,cat,m.png", header=MASKED, rest=","),
        ),
        {},
        "m.png.*0, 1, 2, 3",
        "mask_foreground",
    ),
    "the image as its mask": (
        table("0.png,cat,0.png", header=MASKED, rest=","),
        {},
        "mask of .*0.png",
        "mask_threshold",
    ),
    "a folder for a mask": (
        after(lambda f: (f / "m").mkdir(), table("0.png,cat,m", header=MASKED, rest=",")),
        {},
        "mask of .*0.png.*m' is not a file",
        "name one",
    ),
    "a mask of NaN": (
        after(
            lambda f: tifffile.imwrite(f / "m.tif", np.full((8, 8), np.nan, np.float32)),
            table("0.png,cat,m.tif", header=MASKED, rest=","),
        ),
        *({}, "m.tif.*NaN", "write 0"),
    ),
    "a box outside": (
        table("0.png,cat,90,0,2,2", header=BOXED, rest=",,,,"),
        BOXES,
        "0.png.*x 90",
        "in pixels",
    ),
    "a box without a width": (
        table("0.png,cat,0,0,,2", header=BOXED, rest=",,,,"),
        BOXES,
        "row 1 of .*table.csv.*'0', '0', '', '2'",
        "give left, top",
    ),
    "a box of letters": (
        table("0.png,cat,0,0,two,2", header=BOXED, rest=",,,,"),
        BOXES,
        "row 1 of .*table.csv.*'two'",
        "give left, top",
    ),
    "a box without end": (
        table("0.png,cat,0,0,inf,2", header=BOXED, rest=",,,,"),
        BOXES,
        "row 1 of .*table.csv.*'inf'",
        "give left, top",
    ),
    "a box that turns back": (
        table("0.png,cat,4,4,-2,2", header=BOXED, rest=",,,,"),
        BOXES,
        "row 1 of .*table.csv.*'-2'",
        "give left, top",
    ),
    "no such columns of boxes": (table(), BOXES, "table.csv.*no column 'x'", "say which"),
}
