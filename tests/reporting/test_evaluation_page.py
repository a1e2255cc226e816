"""The page of evaluations, as text; test_browser.py opens it."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from faster_isnet.evaluation.saved_evaluation import SavedEvaluation
from faster_isnet.reporting.evaluation_page import (
    headline,
    render_evaluation_page,
    write_evaluation_page,
)
from html_page import Page


@pytest.fixture(scope="module")
def html(evaluations: list[SavedEvaluation], compared: dict) -> str:
    return render_evaluation_page(evaluations, compared)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_page_carries_all_it_needs_and_may_load_nothing(html: str, page: Page):
    for tag, attributes in page.elements:
        assert tag not in ("iframe", "object", "embed", "base")
        for name in ("src", "srcset", "href", "action", "poster"):
            assert attributes.get(name, "data:").startswith("data:")
    (policy,) = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )


def test_names_are_text_and_nothing_else(html: str, evaluations: list[SavedEvaluation]):
    assert html.count("<script") == 1
    assert evaluations[1].name not in html


def test_it_can_be_read_without_seeing(page: Page):
    assert len(page.all("h1")) == 1
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(th["scope"] in ("col", "row") for th in page.all("th"))
    assert all(len(image["alt"]) > 10 for image in page.all("img"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(section["aria-labelledby"] in ids for section in page.all("section"))


def test_every_set_classifier_and_class_is_there(page: Page, evaluations: list[SavedEvaluation]):
    for text in (
        "Images: test",
        "Images: elsewhere",
        "Difference to foreground on the same images",
    ):
        assert text in page.text
    assert "Fewer than two of these images have a mask" in page.text
    assert page.text.count(evaluations[1].name) > 10
    of_class = [
        a["data-class"] for tag, a in page.elements if tag == "figure" and "data-class" in a
    ]
    assert of_class == ["dark", "dark", "grey", "grey", "light", "light"] * 2
    # Reliability, curves, confusions, two rows of bars; three examples and the worst image of both
    # runs.
    assert len(page.all("img")) == (1 + 6 + 2 + 2 + 6 + 2) + (1 + 6 + 2 + 6)


def test_one_evaluation_alone_is_not_compared(evaluations: list[SavedEvaluation]):
    page = Page(render_evaluation_page(evaluations[:1]))
    assert "Difference to" not in page.text
    assert "p (AUC" not in page.text


def test_the_headline(evaluations: list[SavedEvaluation]):
    assert headline(evaluations[:1]) == (
        "foreground classifies 100.0 % of images correctly, with 0.0 % of its relevance in the "
        "background, which is 88.9 % of the area."
    )


def test_what_cannot_stand_side_by_side(evaluations: list[SavedEvaluation], tmp_path: Path):
    path = tmp_path / "report.html"
    path.write_text("older")
    other = replace(evaluations[1], class_names=["a", "b", "c"])
    for several, message in (
        ([], "no evaluations"),
        ([evaluations[0]] * 2, r"2 runs are called 'foreground'; .* --name"),
        ([evaluations[0], other], "compare runs of the same classes"),
    ):
        with pytest.raises(ValueError, match=message):
            write_evaluation_page(path, several)
    assert path.read_text() == "older"
    write_evaluation_page(path, evaluations[:1])
    assert path.read_text().startswith("<!DOCTYPE html>")


def test_what_the_training_did_not_reach_is_named(evaluations: list[SavedEvaluation]) -> None:
    good, bad = evaluations
    assert "did not converge" not in render_evaluation_page([good])
    page = render_evaluation_page([good, bad])
    assert "The training did not converge" in page
    assert "nothing was learnt &lt;script&gt;" in page
