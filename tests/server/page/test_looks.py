"""Every view in a browser: accessible in light and dark, no wider than the screen, all ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.server.page.driving import Chrome, needs_browser
from tests.server.page.hosting import Hosted

pytestmark = needs_browser

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")
WIDTHS = (320, 400, 1280)
SERIOUS = ("serious", "critical")
RUN_AXE = """
const [rules, done] = arguments;
const options = {resultTypes: ["violations"], preload: false};
if (rules) options.runOnly = {type: "rule", values: rules};
axe.run(document, options).then((found) => done(found.violations.map(
  (one) => [one.impact, one.id, one.nodes.map((node) => node.html.slice(0, 200))])));
"""
# Some of each page: what is repeated a hundred times is made by the same template.
OPEN_SOME = """
for (const e of [...document.querySelectorAll("main details")].slice(0, 6)) e.open = true
"""

VIEWS = {
    "the first page": "/",
    "a search": "/?q=What+can't+Ana+eat%3F&since=2024-06-01",
    "a search for nothing": "/?q=dentist&about=Nobody",
    "what is narrowed": "/?about=Ana&kind=event",
    "the timeline": "/timeline?since=2024-11-20",
    "an empty timeline": "/timeline?until=1900-01-01",
    "the map": "/map",
    "a map of nothing": "/map?about=Nobody",
    "the profile": "/profile",
    "the profile of somebody": "/profile?subject=Ana",
    "the profile of nobody": "/profile?subject=Nobody",
    "a memory": "/memory/{pinned}",
    "a message": "/memory/{message}",
    "a memory that wants to be more": "/memory/{odd}",
    "a memory of one long word": "/memory/{long}",
    "a form": "/memory/{pinned}/edit",
    "a memory that is not there": "/memory/01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "the trash": "/trash",
    "the agents": "/agents",
    "the audit": "/audit?principal=planner",
    "an empty audit": "/audit?until=1900-01-01",
    "storage": "/storage",
    "forgetting": "/forgetting",
    "a plan": "/forgetting/plan?try=1&keep_days=300",
    "a plan that does nothing": "/forgetting/plan",
    "export": "/export",
    "erase": "/erase",
    "a report": "/erase?about=Biscuit",
    "a receipt": "/erase/receipt/{receipt}",
}
views = pytest.mark.parametrize("view", VIEWS)


@pytest.fixture(scope="module")
def ids(host: Hosted) -> dict[str, str]:
    def first(where: dict[str, Any]) -> str:
        return host.db.list(where, limit=1).items[0].id

    return {
        "pinned": first({"pinned": True}),
        "message": first({"kind": "message"}),
        "odd": first({"about": "<i>Eve</i>"}),
        "long": first({"tags": {"$prefix": "ttt"}}),
        "receipt": host.db.receipts()[0].id,
    }


def axe(driver: Chrome, rules: list[str] | None = None) -> list[Any]:
    if not driver.execute_script("return 'axe' in window"):
        driver.execute_script(AXE + "; window.axe = axe")
    found: list[Any] = driver.execute_async_script(RUN_AXE, rules)
    return [one for one in found if one[0] in SERIOUS]


def prefer(driver: Chrome, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def screen(driver: Chrome, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@views
def test_a_view_is_accessible_fits_the_screen_and_asks_nobody_else(
    driver: Chrome, host: Hosted, ids: dict[str, str], view: str
) -> None:
    driver.get_log("performance")
    driver.get_log("browser")
    screen(driver, 1280)
    prefer(driver, "light")
    driver.get(host.url + VIEWS[view].format(**ids))
    driver.execute_script(OPEN_SOME)
    assert not axe(driver)
    # Nothing but colours differs between the themes.
    prefer(driver, "dark")
    assert not axe(driver, ["color-contrast"])
    for width in WIDTHS:
        screen(driver, width)
        wide = driver.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width, f"{wide} pixels on a screen of {width}"
    asked = requests(driver)
    assert asked, "no request was seen"
    assert {urlsplit(url).netloc for url in asked} == {urlsplit(host.url).netloc}
    assert driver.title not in ("taken", "1")
    refused = [entry["message"] for entry in driver.get_log("browser")
               if " 404 " not in entry["message"]]  # fmt: skip
    assert not refused, "the browser complains of nothing, a breach of the policy above all"


def requests(driver: Chrome) -> list[str]:
    """The addresses that were asked for since the log was last read, apart from data: URLs."""
    found = []
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = str(message["params"]["request"]["url"])
            if not url.startswith("data:"):
                found.append(url)
    return found


def test_the_menu_of_a_small_screen_is_accessible_in_both_themes(
    driver: Chrome, host: Hosted
) -> None:
    screen(driver, 400)
    prefer(driver, "light")
    driver.get(host.url + "/timeline")
    driver.execute_script("document.querySelector('.menu').open = true")
    assert not axe(driver)
    prefer(driver, "dark")
    assert not axe(driver, ["color-contrast"])


def test_axe_finds_what_is_not_accessible(driver: Chrome, host: Hosted) -> None:
    driver.get(host.url + "/trash")
    driver.execute_script("document.documentElement.removeAttribute('lang')")
    assert [one[1] for one in axe(driver)] == ["html-has-lang"]
