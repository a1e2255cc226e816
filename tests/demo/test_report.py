from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from faster_isnet.demo.examples import Example
from faster_isnet.demo.metrics import DemoMetrics
from faster_isnet.demo.report import demo_headline, render_report, write_overview, write_report
from html_page import Page

CLASS_NAMES = ["zero", "one", "two"]
CONTENT: dict[str, Any] = {
    "standard": {"biased": 0.991, "unbiased": 0.612, "deceiving": 0.034, "background_share": 0.583},
    "isnet": {"biased": 0.982, "unbiased": 0.979, "deceiving": 0.975, "background_share": 0.041},
    "settings": {"seed": 7, "backbone": "resnet18"},
    "seconds": {"training": 41.25, "evaluation": 3},
}
METRICS = DemoMetrics.from_json(CONTENT)
HOSTILE = "<script>alert('x')</script>\"&"


def example(**changes: object) -> Example:
    fields = {
        "image": torch.rand(1, 8, 8),
        "mask": torch.ones(1, 8, 8),
        "label": 1,
        "caption": "deceiving: mark of class two",
        "heatmaps": {"standard": torch.randn(3, 8, 8), "isnet": torch.randn(1, 8, 8)},
        "predictions": {"standard": 2, "isnet": 1},
    }
    return Example(**(fields | changes))  # type: ignore[arg-type]


def changed(**models: Any) -> DemoMetrics:
    """Return the metrics with other models, or without one where it is ``None``."""
    others = {name: scores for name, scores in (METRICS.models | models).items() if scores}
    return replace(METRICS, models=others)


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(METRICS, [example(), example()], class_names=CLASS_NAMES)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_page_loads_nothing_but_itself(html: str, page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("script", "iframe", "object", "embed", "base")
        for name in ("src", "srcset", "href", "data", "action", "poster", "background"):
            assert attributes.get(name, "data:").startswith("data:")
    assert not re.search(r"url\(|@import|https?://", html)


def test_page_forbids_requests(page: Page) -> None:
    (policy,) = [meta for meta in page.all("meta") if "http-equiv" in meta]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"].startswith("default-src 'none'; img-src data:;")


def test_page_says_every_number(page: Page) -> None:
    scores = [f"{100 * v:.1f} %" for m in ("standard", "isnet") for v in CONTENT[m].values()]
    gaps = ["95.7 %", "0.7 %"]
    for number in [
        *scores,
        *gaps,
        "seed7",
        "backboneresnet18",
        "training41.2 s",
        "evaluation3.0 s",
    ]:
        assert number in page.text


def test_headline_comes_first_and_compares_the_deceiving_sets(page: Page) -> None:
    sentence = demo_headline(METRICS.models)
    assert sentence in page.text
    assert sentence == (
        "With the mark moved to a wrong class, the standard classifier is right on 3.4 % of "
        "images, the ISNet on 97.5 %."
    )


def test_page_can_be_read_without_seeing(page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    assert len(page.all("caption")) == len(page.all("table")) == 3
    assert all(th["scope"] in ("col", "row") for th in page.all("th"))
    assert all(len(image["alt"]) > 20 for image in page.all("img"))
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert all(section["aria-labelledby"] in ids for section in page.all("section"))


def test_wrong_predictions_are_marked_and_only_those(page: Page) -> None:
    verdicts = [figure["class"] for figure in page.all("figure") if "class" in figure]
    assert verdicts == ["wrong", "right"] * 2
    assert page.text.count("✗ wrong: two") == 2
    assert page.text.count("✓ right: one") == 2
    assert sum("predicted class two: wrong" in image["alt"] for image in page.all("img")) == 2


def test_caption_tells_how_colours_are_scaled(page: Page) -> None:
    told = " ".join(page.text.split())
    assert "symmetric about zero up to the 99.5 % quantile of its absolute relevance" in told


def test_every_name_is_escaped() -> None:
    metrics = DemoMetrics(
        METRICS.models | {HOSTILE: METRICS.models["isnet"]}, {HOSTILE: HOSTILE}, {HOSTILE: 1.0}
    )
    models = ("standard", "isnet", HOSTILE)
    strange = example(
        caption=HOSTILE,
        heatmaps={model: torch.randn(1, 8, 8) for model in models},
        predictions=dict.fromkeys(models, 0),
    )
    page = Page(render_report(metrics, [strange], class_names=[HOSTILE] * 3))
    assert page.all("script") == []
    assert page.text.count(HOSTILE) >= 10
    assert any(HOSTILE in image["alt"] for image in page.all("img"))


def test_another_model_joins_in_order() -> None:
    page = Page(render_report(changed(rrr=METRICS.models["isnet"]), [], class_names=CLASS_NAMES))
    assert "the ISNet on 97.5 %, rrr on 97.5 %." in page.text
    accuracies = page.all("img")[0]["alt"]
    assert accuracies.index("Standard:") < accuracies.index("ISNet:") < accuracies.index("rrr:")


def test_page_without_examples_says_so() -> None:
    assert "kept no example images" in Page(render_report(METRICS, [], class_names=[])).text


def test_report_is_written_with_its_folders_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    assert write_report(path, METRICS, [], class_names=CLASS_NAMES) == path
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failing", ["os.fsync", "pathlib.Path.replace"])
@pytest.mark.parametrize("write", [write_report, write_overview])
def test_failure_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, write: Any
) -> None:
    path = tmp_path / "out"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(failing, fail)
    with pytest.raises(OSError, match="disk full"):
        write(path, METRICS, [], class_names=CLASS_NAMES)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_bad_input_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(ValueError, match="example 1 has heatmaps of"):
        write_report(path, METRICS, [lonely()], class_names=CLASS_NAMES)
    assert path.read_text() == "old"


def test_overview_is_a_png(tmp_path: Path) -> None:
    path = write_overview(tmp_path / "overview.png", METRICS, [example()], CLASS_NAMES)
    with Image.open(path) as image:
        assert (image.format, image.width) == ("PNG", 1200)


@pytest.mark.parametrize("write", [write_report, write_overview])
def test_examples_must_fit_the_metrics(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "out"
    with pytest.raises(ValueError, match=r"example 2 has heatmaps of .* metrics has the models"):
        write(path, changed(isnet=None), [lonely(), example()], class_names=CLASS_NAMES)
    with pytest.raises(ValueError, match="class 2 has no name"):
        write(path, METRICS, [example()], class_names=CLASS_NAMES[:2])
    assert not path.exists()


def lonely() -> Example:
    """Return an example of the standard classifier alone."""
    return example(heatmaps={"standard": torch.zeros(1, 8, 8)}, predictions={"standard": 0})
