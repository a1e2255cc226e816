"""The site: it is built without a warning, its tutorials run, and it opens in a browser."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from browser import needs_browser, start_browser

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(
    page.relative_to(DOCS).with_suffix(".html").as_posix() for page in DOCS.rglob("*.md")
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as ``make docs`` does."""
    pytest.importorskip("sphinx")
    pytest.importorskip("efficientnet_lite_pytorch")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run([*command, str(DOCS), str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_is_written_and_reached_from_the_first(site: Path) -> None:
    first = (site / "index.html").read_text(encoding="utf-8")
    assert [page for page in PAGES if not (site / page).exists()] == []
    assert [page for page in PAGES if page not in first and "reference/" not in page] == []


def test_tutorials_show_what_they_ran(site: Path) -> None:
    for page in (site / "tutorials").glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "cell_output" in text, page.name
        assert "<img" in text or "<table" in text, page.name


@needs_browser
def test_pages_open_without_a_network(site: Path) -> None:
    browser = start_browser((1200, 900))
    try:
        for page in PAGES:
            browser.get((site / page).as_uri())
            assert browser.execute_script("return document.querySelector('h1').innerText"), page
            wide = browser.execute_script(
                "return document.documentElement.scrollWidth - window.innerWidth"
            )
            assert wide <= 0, f"{page} is {wide} pixels wider than the window"
        messages = [entry["message"] for entry in browser.get_log("browser")]
        assert not messages
        sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        asked = [
            event["params"]["request"]["url"]
            for event in sent
            if event["method"] == "Network.requestWillBeSent"
        ]
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    finally:
        browser.quit()
