"""A browser without a window, for pages that are looked at."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import shutil
import tempfile

import pytest
from selenium import webdriver
from selenium.webdriver.chrome import service

# Debian's chromium and chromium-driver, or others of that name in PATH.
_BROWSER, _DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

needed = pytest.mark.skipif(
  not (_BROWSER and _DRIVER),
  reason="no chromium and chromedriver in PATH: a page can't be looked at",
)


@contextlib.contextmanager
def open_browser() -> Iterator[webdriver.Chrome]:
  """A browser with a profile of its own, which tells what its console says."""
  options = webdriver.ChromeOptions()
  options.binary_location = _BROWSER
  with tempfile.TemporaryDirectory() as profile:
    for argument in (
      "headless",
      "no-sandbox",
      "disable-gpu",
      "disable-quic",
      "no-first-run",
      "disable-background-networking",
      "disable-sync",
      "disable-component-update",
      f"user-data-dir={profile}",
    ):
      options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, service.Service(_DRIVER))
    try:
      yield driver
    finally:
      driver.quit()
