"""A browser, and the two ways in which a person uses a page: with a mouse and with a keyboard.

A ``Hand`` presses and fills what has a name, as a person who reads the names would. Nothing here
knows what a page is about.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="chromium and chromedriver are not installed (apt-get install chromium chromium-driver)",
)
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--window-size=1280,900", "--disable-software-rasterizer"),
    *("--disable-extensions", "--no-zygote", "--renderer-process-limit=1", "--mute-audio"),
)
_WAIT_S = 20
_TABS = 60

_NAME = """
const nameOf = (e) => ((e.labels && e.labels.length ? e.labels[0].textContent : "") ||
  e.getAttribute("aria-label") || e.textContent || e.value || "").replace(/\\s+/g, " ").trim();
"""
_FIND = (
    _NAME
    + """
const seen = (e) => e.checkVisibility({visibilityProperty: true}) && e.getClientRects().length;
const begins = (name) => name.startsWith(arguments[1]) &&
  !/^\\w/.test(name.slice(arguments[1].length));
return [...document.querySelectorAll(arguments[0])].find(
  (e) => seen(e) && begins(nameOf(e))) || null;
"""
)
_FOCUSED = (
    _NAME
    + """
const e = document.activeElement;
return e && e !== document.body ? [nameOf(e), e.tagName, e.matches(arguments[0])] : null;
"""
)
# How many stops of the tab key lie between here and there, if each control is one.
_STOPS = (
    _FIND.rsplit("return", 1)[0]
    + """
const stops = [...document.querySelectorAll(
  "a[href], button, summary, input:not([type=hidden]), select, textarea, [tabindex]")].filter(
    (e) => e.tabIndex >= 0 && seen(e) && (e.type !== "radio" || e.checked));
const there = stops.findIndex((e) => e.matches(arguments[0]) && begins(nameOf(e)));
const here = stops.findIndex((e) => e === document.activeElement);
return there > here ? there - here : 1;
"""
)
_CONTROLS = "a[href]:not([tabindex='-1']), button, summary"
_FIELDS = "input:not([type=hidden]), select, textarea"


@contextmanager
def browser(profile: Path) -> Iterator[Chrome]:
    """A headless Chromium with a profile of its own, which logs its requests."""
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = Chrome(options=options, service=ChromeService(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


class Hand:
    """What both ways share: looking."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def open(self, path: str) -> None:
        self.driver.get(self.url + path)

    def text(self) -> str:
        """What the page says, as it is shown."""
        return str(self.driver.execute_script("return document.getElementById('main').innerText"))

    def sees(self, words: str) -> str:
        """Wait until the page says so; all it says."""

        def there(_: Any) -> bool:
            try:
                return words in self.text()
            except StaleElementReferenceException:
                return False

        try:
            WebDriverWait(self.driver, _WAIT_S, 0.05).until(there)
        except TimeoutException:
            raise AssertionError(f"never says {words!r}: {self.text()}") from None
        return self.text()

    def press(self, name: str) -> None:
        """Use the link, button or disclosure whose name begins with these words."""
        raise AssertionError("a hand presses")

    def fill(self, name: str, text: str) -> None:
        """Write into the field whose label begins with these words, instead of what is there."""
        raise AssertionError("a hand writes")

    def submit(self) -> None:
        """Send the form of the field just filled."""
        self.driver.switch_to.active_element.send_keys(Keys.ENTER)


class Mouse(Hand):
    """Points and clicks."""

    def _find(self, kinds: str, name: str) -> WebElement:
        found = self.driver.execute_script(_FIND, kinds, name)
        assert isinstance(found, WebElement), f"nothing to use is called {name!r}: {self.text()}"
        return found

    def press(self, name: str) -> None:
        self._find(_CONTROLS, name).click()

    def fill(self, name: str, text: str) -> None:
        field = self._find(_FIELDS, name)
        field.clear()
        field.send_keys(text)


class Keyboard(Hand):
    """Moves with the tab key, sees where it is, and types."""

    def _move_to(self, kinds: str, name: str) -> None:
        """Press tab until the focus is there, and is seen to be there."""
        passed = []
        for _ in range(_TABS):
            # As often as it seems to need, then once more and again: a date has several stops.
            stops = self.driver.execute_script(_STOPS, kinds, name)
            self.driver.switch_to.active_element.send_keys(Keys.TAB * stops)
            focused = self.driver.execute_script(_FOCUSED, kinds)
            if focused is None:
                continue
            passed.append(focused[0])
            if focused[2] and re.match(re.escape(name) + r"(?!\w)", focused[0]):
                shown = self.driver.execute_script(
                    "const s = getComputedStyle(document.activeElement);"
                    "return s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0"
                )
                assert shown, f"the focus on {name!r} cannot be seen"
                return
        raise AssertionError(f"tab never reaches {name!r}, only {passed}")

    def press(self, name: str) -> None:
        self._move_to(_CONTROLS, name)
        self.driver.switch_to.active_element.send_keys(Keys.ENTER)

    def fill(self, name: str, text: str) -> None:
        self._move_to(_FIELDS, name)
        field = self.driver.switch_to.active_element
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text)
