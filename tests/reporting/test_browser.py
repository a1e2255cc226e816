"""The page in a real browser: Debian's chromium and chromium-driver, if they are there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import needs_browser, start_browser
from faster_isnet.evaluation.saved_evaluation import SavedEvaluation
from faster_isnet.reporting import write_evaluation_page

pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture(scope="module")
def browser(
    evaluations: list[SavedEvaluation], compared: dict, tmp_path_factory: pytest.TempPathFactory
) -> Iterator:
    path = write_evaluation_page(
        tmp_path_factory.mktemp("page") / "report.html", evaluations, compared
    )
    driver = start_browser()
    driver.get(Path(path).as_uri())
    yield driver
    driver.quit()


def test_nothing_is_complained_about_and_nothing_asked_of_the_network(browser):
    assert browser.get_log("browser") == []
    messages = [json.loads(m["message"])["message"] for m in browser.get_log("performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert asked
    assert all(url.startswith(("file:", "data:")) for url in asked)


def test_every_picture_loads(browser):
    widths = browser.execute_async_script(
        "const done = arguments[0];"
        "const pictures = [...document.images];"
        "pictures.forEach(p => { p.loading = 'eager'; });"
        "Promise.all(pictures.map(p => p.decode().catch(() => null)))"
        ".then(() => done(pictures.map(p => p.naturalWidth)));"
    )
    assert len(widths) == 34
    assert min(widths) > 0


def column(browser, number: int) -> list[str]:
    """Return the first line of each cell of the first table of classes."""
    rows = browser.find_elements("css selector", "#set-1 ~ .scroll table")[2]
    rows = rows.find_elements("css selector", "tbody tr")
    return [row.find_elements("css selector", "th, td")[number].text.split("\n")[0] for row in rows]


def click_head(browser, number: int) -> str:
    table = browser.find_elements("css selector", "#set-1 ~ .scroll table")[2]
    head = table.find_elements("css selector", "thead th")[number]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", head)
    head.find_element("css selector", "button").click()
    return head.get_attribute("aria-sort")


def test_tables_sort_both_ways_and_numbers_as_numbers(browser):
    before = column(browser, 0)
    assert before == ["dark", "dark", "grey", "grey", "light", "light"]
    assert click_head(browser, 0) == "ascending"
    assert click_head(browser, 0) == "descending"
    assert column(browser, 0) == before[::-1]
    browser.execute_script(
        "const table = document.querySelectorAll('#set-1 ~ .scroll table')[2];"
        "[10, 9, 100, '', 1, 2].forEach((value, i) => {"
        "  const cell = table.tBodies[0].rows[i].cells[2];"
        "  cell.dataset.value = value; cell.textContent = value;"
        "});"
    )
    assert click_head(browser, 2) == "ascending"
    assert column(browser, 2) == ["1", "2", "9", "10", "100", ""]
    assert click_head(browser, 2) == "descending"
    assert column(browser, 2) == ["100", "10", "9", "2", "1", ""]
    sorted_heads = browser.find_elements("css selector", "th[aria-sort]")
    assert len(sorted_heads) == 1


def test_the_filter_hides_all_of_other_classes(browser):
    choice = browser.find_element("id", "class")
    assert choice.is_displayed()
    of_a_class = browser.find_elements("css selector", "[data-class]")
    assert all(element.is_displayed() for element in of_a_class)
    choice.find_elements("css selector", "option")[2].click()
    shown = {e.get_attribute("data-class") for e in of_a_class if e.is_displayed()}
    assert shown == {"grey"}
    choice.find_elements("css selector", "option")[0].click()
    assert all(element.is_displayed() for element in of_a_class)


def test_it_fits_a_narrow_screen(browser):
    browser.set_window_size(500, 900)
    overflow = browser.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert overflow <= 0
