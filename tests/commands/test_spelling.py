"""One spelling of options and keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from faster_isnet.commands.spelling import (
    Kind,
    Option,
    option_of,
    spell_arguments,
    spell_keys,
)

OPTIONS = {
    "out": Option(Kind.VALUE),
    "batch_size": Option(Kind.VALUE),
    "over_write": Option(Kind.FLAG),
    "names": Option(Kind.LIST, texts=True),
    "sizes": Option(Kind.LIST),
    "fields": Option(Kind.MAPPING),
    "model": Option(Kind.OBJECT),
    "settings": Option(Kind.OTHER),
    "settings.over_write": Option(Kind.FLAG),
    "settings.learning_rate": Option(Kind.VALUE),
    "help": Option(Kind.OTHER),
}


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (bool, Option(Kind.FLAG)),
        (bool | None, Option(Kind.FLAG)),
        (bool | int, Option(Kind.VALUE)),
        (str | Path | None, Option(Kind.VALUE)),
        (list[str], Option(Kind.LIST, texts=True)),
        (tuple[int, int] | None, Option(Kind.LIST)),
        (float | list[float], Option(Kind.OBJECT)),
        (dict[str, Path] | None, Option(Kind.MAPPING)),
        (str | dict[str, Path], Option(Kind.MAPPING)),
        (yaml.Node | None, Option(Kind.OBJECT)),
        (None, Option(Kind.OTHER)),
    ],
)
def test_an_annotation_tells_what_an_option_takes(annotation: Any, expected: Option) -> None:
    assert option_of(annotation) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--batch-size", "3", "a-b"], ["--batch_size", "3", "a-b"]),
        (["--batch-size=a-b=c-d"], ["--batch_size=a-b=c-d"]),
        (["--settings.learning-rate", "1"], ["--settings.learning_rate", "1"]),
        (["--settings.no-over-write"], ["--settings.over_write=false"]),
        (["--no-settings.over-write"], ["--settings.over_write=false"]),
        (["--over-write", "image"], ["--over_write=true", "image"]),
        (["--over-write", "False", "image"], ["--over_write=False", "image"]),
        (["--names", "a", "8", "--out", "x"], ['--names=["a", "8"]', "--out", "x"]),
        (["--names=a"], ['--names=["a"]']),
        (["--names", "[a, b]"], ["--names=[a, b]"]),
        (["--names"], ["--names"]),
        (["--names+=a"], ["--names+=a"]),
        (["--sizes", "1", "-2"], ["--sizes=[1, -2]"]),
        (["--sizes", "null"], ["--sizes=null"]),
        (["--fields.other-name", "x-y"], ["--fields.other-name", "x-y"]),
        (["--model.init-args.batch-size=1"], ["--model.init_args.batch_size=1"]),
        (["--help"], ["--help"]),
        (["--out", "x", "fit", "--batch-size", "3"], ["--out", "x", "fit", "--batch-size", "3"]),
        (["--", "--batch-size"], ["--", "--batch-size"]),
    ],
)
def test_arguments_become_those_of_the_parser(given: list[str], expected: list[str]) -> None:
    assert spell_arguments(given, OPTIONS, ["fit"]) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--batchsize", "unknown option --batchsize; did you mean '--batch_size'?"),
        ("--settings.learningrate", "did you mean '--settings.learning_rate'?"),
        ("--out.more", "unknown option --out.more"),
        ("--no-out", "unknown option --no-out"),
        ("--no-over-write=true", "takes no value, got 'true'; write --over_write=true"),
    ],
)
def test_what_cannot_be_meant_names_the_cure(given: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        spell_arguments([given], OPTIONS)


def test_keys_are_respelled_and_values_are_not() -> None:
    text = """
    batch-size: 1e-3
    out: '1e-3'
    settings: {learning-rate: 2, over-write: true}
    fields: {group-name: a-b}
    model: {class_path: a.b-c, init_args: {drop-out: [{init_args: {in-ner: 1}}], table: {k-k: 1}}}
    """
    assert yaml.safe_load(spell_keys(text, OPTIONS)) == {
        "batch_size": "1e-3",
        "out": "1e-3",
        "settings": {"learning_rate": 2, "over_write": True},
        "fields": {"group-name": "a-b"},
        "model": {
            "class_path": "a.b-c",
            "init_args": {"drop_out": [{"init_args": {"in_ner": 1}}], "table": {"k-k": 1}},
        },
    }
    spelled = spell_keys(text, OPTIONS)
    merged = "settings: &s {over-write: true}\nmodel: {<<: *s}\n"
    assert yaml.safe_load(spell_keys(merged, OPTIONS))["model"] == {"over_write": True}
    assert "batch_size: 1e-3" in spelled  # which jsonargparse reads as a number
    assert "out: '1e-3'" in spelled


def test_text_that_needs_no_change_stays_as_it_is() -> None:
    for text in ("out: x  # as ever\n", "- a-b\n", "fit: {batch-size: 1}\n", "a: [", ""):
        assert spell_keys(text, OPTIONS, ["fit"]) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batchsize: 1", "unknown key 'batchsize'; did you mean 'batch_size'?"),
        ("settings: {learningrate: 1}", "did you mean 'settings.learning_rate'?"),
        ("out.more: 1", "unknown key 'out.more'"),
    ],
)
def test_an_unknown_key_names_the_nearest(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        spell_keys(text, OPTIONS)
