"""Debian's chromium and chromium-driver, for tests of pages in a real browser."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no chromium, or no chromedriver"
)


def start_browser(size: tuple[int, int] = (1200, 900), **preferences: str) -> Any:
    """Start a browser without a window; ``quit()`` ends it."""
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    window = f"--window-size={size[0]},{size[1]}"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", window):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.add_experimental_option("prefs", preferences)
    return webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
