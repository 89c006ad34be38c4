"""A life to look at, the page that shows it, and a browser where one is installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import memdb
from memdb import sample_life
from tests.server.page.driving import Chrome, browser
from tests.server.page.hosting import Hosted, hosting

# What comes from outside and must stay text.
SCRIPT = '<script>document.title = "taken"</script><img src=x onerror="document.title = 1">'
OVERRIDE = "invoice \u202egpj.exe\u202c was opened"
LONG = "unbreakable" * 60
AGENTS = {
    "planner": memdb.Grant(actions=["read", "add"], where={"namespace": {"$exists": True}}),
    "an old one": memdb.Grant(),
    "<b>odd</b>": memdb.Grant(where={"kind": {"$in": ["note"]}}, deny={"tags": "<i>private</i>"}),
}
ODD_SOURCE = 'javascript:alert("x")'


@pytest.fixture(scope="session")
def life(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed database with a part of the sample life, and text that wants to be more."""
    folder = tmp_path_factory.mktemp("page")
    sample_life.copy_notes(folder / "notes")
    with memdb.open(folder / "life", source="app:demo") as db:
        db.settings.time_zone = sample_life.TIME_ZONE
        db.files.sync(folder / "notes", include=["r*.md"])
        db.remember_many(list(sample_life.messages()))
        db.remember_many(list(sample_life.calendar()))
        for fact in sample_life.profile():
            db.profile.set(**fact)
        gate = db.remember("The gate of the allotment opens with 4711", source="cli")
        db.update(gate.id, text="The gate of the allotment now opens with 4711", pinned=True)
        db.remember(SCRIPT, source=ODD_SOURCE, tags=["<b>tag</b>"], about=["<i>Eve</i>"],
                    metadata={"<u>key</u>": "<s>value</s>"})  # fmt: skip
        db.remember(OVERRIDE, source="app:mail")
        db.remember(LONG, source="app:" + "s" * 200, tags=["t" * 200], about=["n" * 200])
        messages = db.list({"kind": "message"}, limit=4).items
        db.forget([one.id for one in messages[:3]])
        db.remember("the milk is in the fridge", source="cli", expires_in="3d")
        for name, grant in AGENTS.items():
            db.tokens.create(name, grant, expires_in="90d")
        planner = db.acting(db.tokens.named("planner"), purpose="to plan the week")
        planner.remember("Ana has swimming on Thursdays")
        planner.recall("what does Ana do?", k=3)
        db.tokens.revoke("an old one")
        db.erase(db.remember("what nobody should know", source="cli").id).wait()
    return folder / "life"


@pytest.fixture(scope="module")
def host(life: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    """The page over a copy of that life, which the tests of a module change as they go."""
    copy = tmp_path_factory.mktemp("host") / "life"
    shutil.copytree(life, copy)
    with hosting(copy) as host:
        yield host


@pytest.fixture(scope="session")
def any_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """One browser for all: starting it takes longer than most of what is done with it."""
    with browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def driver(any_browser: Chrome, host: Hosted) -> Chrome:
    """The browser, signed in to the page of this module."""
    any_browser.get(host.link())
    return any_browser


@pytest.fixture(autouse=True)
def ordinary_screen(request: pytest.FixtureRequest) -> None:
    """What a test asked of the screen is not there for the next."""
    if "driver" in request.fixturenames:
        driver = request.getfixturevalue("driver")
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
