"""The report in a browser: complete, quiet, without a network, at two widths.

Needs Debian's chromium and chromium-driver, or others of that name in PATH.
"""

from __future__ import annotations

import shutil

import pytest
from selenium.webdriver.common import by

from sum_l_jax.tools.report.__main__ import write_report
from tests.support import browsers

pytestmark = browsers.needed
# A desktop's window, and a phone's.
WIDTHS = {"desktop": 1200, "phone": 390}


@pytest.fixture(name="driver", scope="module")
def _driver():
  with browsers.open_browser() as driver:
    yield driver


@pytest.fixture(name="address", scope="module")
def _address(finished, tmp_path_factory):
  """A report with a baseline: the widest tables there are."""
  folder = tmp_path_factory.mktemp("browser")
  for name in ("run", "baseline"):
    shutil.copytree(finished[0], folder / name)
  return write_report(folder / "run", baseline=folder / "baseline", number=1).as_uri()


@pytest.fixture(name="page", params=WIDTHS)
def _page(request, driver, address):
  driver.execute_cdp_cmd(
    "Emulation.setDeviceMetricsOverride",
    {
      "width": WIDTHS[request.param],
      "height": 800,
      "deviceScaleFactor": 1,
      "mobile": request.param == "phone",
    },
  )
  driver.get_log("browser")  # Of the page before.
  driver.get(address)
  return driver


def _find(page, selector):
  return page.find_elements(by.By.CSS_SELECTOR, selector)


def test_nothing_complains_and_nothing_is_fetched(page):
  assert page.get_log("browser") == []
  assert (
    page.execute_script(
      "return performance.getEntriesByType('resource').map(e => e.name)"
      ".filter(name => !name.startsWith('data:'))"
    )
    == []
  )


def test_pictures_are_drawn_and_described(page):
  pictures = _find(page, "img")
  assert len(pictures) >= 5
  for picture in pictures:
    assert int(picture.get_property("naturalWidth")) > 50
    assert len(picture.get_attribute("alt")) > 10


def test_the_page_is_as_wide_as_the_window(page):
  """Wide tables scroll by themselves."""
  wide, inner = page.execute_script(
    "return [document.documentElement.scrollWidth, window.innerWidth]"
  )
  assert wide <= inner
  moved = page.execute_script("""
      return [...document.querySelectorAll('.scroll')]
          .filter(e => e.scrollWidth > e.clientWidth)
          .map(e => { e.scrollLeft = 9999;
                      return e.scrollLeft + e.clientWidth - e.scrollWidth; })
      """)
  assert all(abs(rest) <= 1 for rest in moved)
  if inner == WIDTHS["phone"]:
    assert moved, "no table is wider than a phone: what was tested?"


def _theme(page):
  """Brightness of the page and of its text, 0 to 255, and the filter of drawings."""
  return page.execute_script("""
      const gray = text => text.match(/[0-9.]+/g).slice(0, 3).map(Number)
          .reduce((a, b) => a + b) / 3;
      const body = getComputedStyle(document.body);
      const head = getComputedStyle(document.querySelector('tbody th'));
      const drawing = getComputedStyle(document.querySelector('img.drawing'));
      return [gray(body.backgroundColor), gray(body.color), gray(head.backgroundColor),
              drawing.filter];
      """)


@pytest.mark.parametrize("device", ["light", "dark"])
@pytest.mark.parametrize("chosen", ["auto", "light", "dark"])
def test_light_and_dark(page, device, chosen):
  """As the device is, unless the reader chooses."""
  scheme = {"name": "prefers-color-scheme", "value": device}
  page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
  try:
    _find(page, f"#theme-{chosen}")[0].click()
    paper, ink, head, turned = _theme(page)
    photographs = page.execute_script(
      "return [...document.querySelectorAll('img:not(.drawing)')]"
      ".map(e => getComputedStyle(e).filter)"
    )
  finally:
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
  dark = (device if chosen == "auto" else chosen) == "dark"
  assert (paper < 40, ink > 200, turned != "none") == (dark, dark, dark)
  assert abs(paper - ink) > 180
  assert head == paper
  assert photographs and set(photographs) == {"none"}


def test_folded_parts_open_and_close(page):
  details = _find(page, "details")
  assert details
  for part in details:
    summary = part.find_element(by.By.TAG_NAME, "summary")
    inside = part.find_element(by.By.TAG_NAME, "table")
    assert not inside.is_displayed()
    page.execute_script("arguments[0].scrollIntoView()", summary)
    summary.click()
    assert inside.is_displayed()
    summary.click()
    assert not inside.is_displayed()


def test_links_lead_to_their_sections(page):
  links = _find(page, "nav a")
  assert len(links) == len(_find(page, "section")) == 9
  for link in links:
    page.execute_script("window.scrollTo(0, 0)")
    link.click()
    name = link.get_attribute("href").partition("#")[2]
    top, bottom = page.execute_script(
      "const box = document.getElementById(arguments[0])"
      ".getBoundingClientRect(); return [box.top, box.bottom]",
      name,
    )
    # At the top of the window, or as near as the page's end allows.
    assert top < 800 and bottom > 0
    assert page.execute_script("return location.hash") == f"#{name}"
