"""From masks that a segmenter writes over the page to a training, as a user goes."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from browser import needs_browser, start_browser
from faster_isnet.data import ImageData, MaskReview
from faster_isnet.reporting import write_mask_review
from faster_isnet.segmentation import TrainedSegmenter, predict_masks
from faster_isnet.segmentation.settings import SegmenterSettings
from faster_isnet.segmentation.shapes import ShapeRanges
from toy_runs import fit, write_images


class Bright(torch.nn.Module):
    """Finds what is brighter than the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.full((), 5.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scale * images.mean(1, keepdim=True)


@pytest.fixture
def segmenter() -> TrainedSegmenter:
    ranges = ShapeRanges((0.05, 0.5), (1, 2), (0.3, 0.7), (0.3, 0.7))
    return TrainedSegmenter(Bright(), SegmenterSettings(size=64), ranges)


@pytest.fixture
def drawn(tmp_path: Path, segmenter: TrainedSegmenter) -> pd.DataFrame:
    """Masks of images of which the file names are such as others may give."""
    write_images(tmp_path / "images")
    hostile = tmp_path / "images/bright" / "=1+1 <script>alert(1)<!--, .png"
    Image.fromarray(np.full((24, 24), 90, np.uint8)).save(hostile)
    images = sorted((tmp_path / "images").rglob("*.png"))
    return predict_masks(segmenter, images, tmp_path / "drawn")


def items(page: str) -> list[str]:
    return re.findall(r'<li tabindex="-1" data-cells="([^"]*)"', page)


def test_the_page_shows_the_least_plausible_first_and_says_what_it_leaves_out(tmp_path, drawn):
    assert not drawn["plausible"].all()
    assert drawn["plausible"].any()
    path = write_mask_review(drawn, tmp_path / "drawn")
    page = path.read_text("utf-8")
    assert path.name == "review.html"
    assert len(items(page)) == len(drawn) == page.count("data:image/jpeg")
    plausible = re.findall(r'data-plausible="(\w+)"', page)
    assert plausible == sorted(plausible)
    assert "alert(1)<" not in page
    few = write_mask_review(drawn, tmp_path / "drawn", most=5).read_text("utf-8")
    assert items(few) == items(page)[:5]
    assert f"5 masks of {len(drawn)}, the least plausible first" in few
    assert f"{len(drawn) - 5} masks, the\n  most plausible, are not on this page" in few
    with pytest.raises(ValueError, match="most"):
        write_mask_review(drawn, tmp_path / "drawn", most=0)


@pytest.fixture
def page(tmp_path: Path, drawn: pd.DataFrame) -> Iterator[Any]:
    path = write_mask_review(drawn, tmp_path / "drawn")
    driver = start_browser(**{"download.default_directory": str(tmp_path)})
    driver.get(path.as_uri())
    yield driver
    driver.quit()


def press(page: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    actions = ActionChains(page)
    for key in keys:
        actions.send_keys(key)
    actions.perform()


def decisions(page: Any) -> list[str | None]:
    return [
        item.get_attribute("data-decision")
        for item in page.find_elements("css selector", "#masks li")
    ]


def saved(page: Any, folder: Path) -> Path:
    page.find_element("id", "save").click()
    path = folder / "mask_review.csv"
    until = time.monotonic() + 20
    while not path.is_file() and time.monotonic() < until:
        time.sleep(0.1)
    return path


@pytest.mark.slow
@needs_browser
def test_decisions_are_kept_saved_and_followed(page, tmp_path, drawn, caplog):
    from selenium.webdriver import Keys

    count = len(drawn)
    assert page.get_log("browser") == []
    press(page, "r", "r", "a", "d", Keys.ARROW_RIGHT, "r", Keys.ARROW_LEFT, Keys.BACKSPACE)
    made = ["reject", "reject", "accept", "draw", None, None]
    assert decisions(page)[:6] == made
    press(page, "r")
    made[5] = "reject"
    state = page.find_element("id", "state").text
    assert state == f"5 of {count} decided: 1 accepted, 3 rejected, 1 to draw"
    page.refresh()
    assert decisions(page)[:6] == made
    # By the mouse as by the keys; a second click takes it back.
    last = page.find_elements("css selector", "#masks li")[-1]
    button = last.find_element("css selector", "button[value=draw]")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert decisions(page) == made + [None] * (count - 6)

    table = saved(page, tmp_path)
    review = MaskReview.load(table)
    assert sorted(review.decisions.values()) == sorted(filter(None, made))
    assert set(review.decisions) <= {
        Path(image).relative_to(tmp_path / "images").as_posix() for image in drawn["image"]
    }
    assert page.get_log("browser") == []

    with caplog.at_level(logging.WARNING, "faster_isnet"):
        fit(tmp_path / "images", tmp_path / "run", "--data.mask_review", str(table))
    said = re.findall(r"(\d+) of the \d+ images of '(\w+)' are left out, since", caplog.text)
    data = ImageData(
        tmp_path / "images", size=24, division=tmp_path / "run/division.json", mask_review=table
    )
    left_out = {
        split: len(data.findings.of_split(split)) - len(data.datasets[split])
        for split in ("train", "val", "test")
    }
    assert {split: int(number) for number, split in said} == {
        split: number for split, number in left_out.items() if number
    }
    in_test = data.mask_review.rejected(data.datasets["test"].samples)
    assert sum(left_out.values()) + len(in_test) == 3


@pytest.mark.slow
@needs_browser
def test_what_is_hidden_is_not_decided(page, drawn):
    from selenium.webdriver.support.ui import Select

    Select(page.find_element("id", "show")).select_by_value("implausible")
    shown = [
        item for item in page.find_elements("css selector", "#masks li") if item.is_displayed()
    ]
    assert len(shown) == int((~drawn["plausible"].astype(bool)).sum())
