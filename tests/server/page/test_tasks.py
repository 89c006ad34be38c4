"""What a person comes to do, done in a browser: with the mouse, and with the keyboard alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from memdb import PermissionDenied
from tests.server.page.driving import Hand, Keyboard, Mouse, needs_browser
from tests.server.page.hosting import Hosted

pytestmark = needs_browser


@pytest.fixture(params=[Mouse, Keyboard], ids=["mouse", "keyboard"])
def hand(request: pytest.FixtureRequest, driver: Chrome, host: Hosted) -> Hand:
    made: Hand = request.param(driver, host.url)
    return made


def test_a_question_is_asked_and_the_answer_says_why_it_was_found(hand: Hand) -> None:
    hand.open("/")
    hand.fill("Search the memories", "What can't Ana eat?")
    hand.submit()
    hand.sees("cannot eat hazelnuts")
    hand.press("Why this was found")
    said = hand.sees("A fact you asked for")
    assert "is the fact Ana.allergy" in said
    assert "speak for it" in said


def test_a_found_memory_is_opened_and_shows_what_was_said_around_it(hand: Hand) -> None:
    hand.open("/?q=Where+did+Jonas+put+the+spare+key%3F&kind=message")
    first = hand.sees("Why this was found")
    assert "blue teapot" in first
    hand.press(next(line for line in first.splitlines() if "blue teapot" in line))
    said = hand.sees("Said around it")
    assert "blue teapot" in said
    assert "Europe/London" in said


def test_a_memory_is_found_on_the_map_and_opened_from_its_list(hand: Hand, host: Hosted) -> None:
    hand.open("/map?kind=event")
    said = hand.sees("The same as a list")
    listed = said.split("The same as a list")[1].splitlines()
    region = next(line for line in listed if line[-1:].isdigit())
    hand.press(region.rsplit(" ", 1)[0])
    texts = {one.text for one in host.db.iter({"kind": "event"}) if one.text}
    text = next(line for line in hand.text().splitlines() if line in texts)
    hand.press(text)
    assert text in hand.sees("Europe/London")


def test_arrow_keys_walk_the_map_and_say_what_is_there(driver: Chrome, host: Hosted) -> None:
    hand = Keyboard(driver, host.url)
    hand.open("/map?kind=event")
    for _ in range(40):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        if driver.execute_script("return document.activeElement.id") == "map":
            break
    pointed = "return document.getElementById('pointed').innerText.split('\\n')[0]"
    heard = []
    for key in (Keys.RIGHT, Keys.RIGHT, Keys.LEFT, Keys.DOWN, Keys.UP):
        driver.switch_to.active_element.send_keys(key)
        heard.append(driver.execute_script(pointed))
    assert len(set(heard)) > 1
    assert set(heard) <= {one.text for one in host.db.iter({"kind": "event"})}
    driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert heard[-1] in hand.sees("Europe/London")


def test_pointing_at_a_mark_says_what_it_is_and_a_click_opens_it(
    driver: Chrome, host: Hosted
) -> None:
    hand = Mouse(driver, host.url)
    hand.open("/map?kind=event")
    mark = driver.find_element("css selector", ".map a[data-n='7']")
    ActionChains(driver).move_to_element(mark).perform()
    text = driver.execute_script("return document.querySelector('#pointed .said').textContent")
    assert text in {one.text for one in host.db.iter({"kind": "event"})}
    mark.click()
    assert text in hand.sees("Europe/London")


def test_a_fact_is_changed_and_its_history_keeps_the_value_before(hand: Hand, host: Hosted) -> None:
    value = f"a red bicycle, by {type(hand).__name__}"
    before = host.db.profile.get("car", namespace="default")
    hand.open("/profile")
    hand.press("Change car")
    hand.fill("New value", value)
    hand.submit()
    hand.sees("Car changed")
    assert host.db.profile.get("car", namespace="default") == value
    assert host.db.profile.versions("car", namespace="default")[-2].data == before
    assert value in hand.text()


def test_a_memory_is_edited_pinned_and_let_go(hand: Hand, host: Hosted) -> None:
    text = f"the bins go out on {type(hand).__name__} days"
    id = host.db.remember("the bins go out", namespace="default", dedup="off").id
    hand.open(f"/memory/{id}")
    hand.press("Edit")
    hand.fill("What it says", text)
    hand.press("Save")
    said = hand.sees("Saved. What it said before is kept below.")
    assert text in said
    hand.press("Pin")
    hand.sees("Pinned: nothing will forget it by itself.")
    assert host.db[id].pinned
    hand.press("Unpin")
    hand.sees("No longer pinned")
    assert [one.text for one in host.db.versions(id)][:2] == ["the bins go out", text]


def test_a_memory_is_forgotten_and_the_message_brings_it_back(hand: Hand, host: Hosted) -> None:
    id = host.db.remember("a slip of the tongue", namespace="default", dedup="off").id
    hand.open(f"/memory/{id}")
    hand.press("Forget")
    hand.sees("It stays in the trash for seven days.")
    assert host.db.get(id) is None
    hand.press("Undo")
    hand.sees("Brought back 1 memory.")
    assert host.db[id].text == "a slip of the tongue"


def test_the_trash_brings_back_what_was_forgotten_together(hand: Hand, host: Hosted) -> None:
    ids = [host.db.remember(f"page {n} of the list", namespace="default", dedup="off").id
           for n in range(3)]  # fmt: skip
    host.db.forget(ids)
    hand.open("/trash")
    hand.press("Bring all 3 back")
    hand.sees("Brought back 3 memories.")
    assert all(host.db.get(id) is not None for id in ids)


def test_a_plan_of_forgetting_is_looked_at_applied_and_undone(hand: Hand, host: Hosted) -> None:
    before = host.db.count()
    hand.open("/forgetting")
    hand.fill("Earlier values are kept, days", "300")
    hand.press("Show the plan")
    said = hand.sees("What would be forgotten")
    assert "Nothing has been done." in said
    assert "something newer replaced it" in said
    assert host.db.count() == before
    hand.press("Do it")
    hand.press("Yes, forget them")
    hand.sees("Done: ")
    assert host.db.count() < before
    hand.press("Undo")
    hand.sees("Brought back")
    assert host.db.count() == before


def test_something_is_erased_after_its_report_and_its_number(hand: Hand, host: Hosted) -> None:
    name = f"Mallory {type(hand).__name__}"
    for n in range(3):
        host.db.remember(f"{name} said {n}", about=[name], namespace="default", dedup="off")
    host.db.remember(f"they mention {name} only", namespace="default", dedup="off")
    hand.open("/erase")
    hand.fill("About", name)
    hand.press("Show what would go")
    said = hand.sees("3 memories would go")
    assert "Only mention the name, and stay" in said
    hand.fill("Type 3 to confirm", "2")
    hand.press("Erase 3 memories")
    hand.sees("that is how many would go")
    assert host.db.count({"about": name}) == 3
    hand.fill("Type 3 to confirm", "3")
    hand.press("Erase 3 memories")
    hand.sees("Receipt of an erasure")
    assert host.db.count({"about": name}) == 0
    assert host.db.receipts()[-1].counts["memories"] == 3


def test_an_agent_gets_a_token_is_paused_and_revoked(hand: Hand, host: Hosted) -> None:
    name = f"helper {type(hand).__name__}"
    hand.open("/agents")
    hand.fill("Name", name)
    hand.press("Make a token")
    said = hand.sees("Copy it now: it is not shown again.")
    secret = next(line for line in said.splitlines() if line.startswith("mdb_"))
    assert host.db.tokens.authenticate(secret).name == name
    hand.press(f"Pause {name}")
    hand.sees(f"{name} is paused")
    with pytest.raises(PermissionDenied):
        host.db.tokens.authenticate(secret)
    hand.press(f"Resume {name}")
    hand.sees("may do again what its grant says")
    hand.press(f"Revoke {name}")
    hand.press("Revoke it for good")
    hand.sees(f"The token of {name} is revoked.")
    with pytest.raises(PermissionDenied):
        host.db.tokens.authenticate(secret)


def test_all_remembering_is_paused_and_goes_on(hand: Hand, host: Hosted) -> None:
    planner = host.db.acting(host.db.tokens.named("planner"))
    hand.open("/agents")
    hand.press("Pause all remembering")
    hand.sees("Remembering is paused")
    with pytest.raises(PermissionDenied):
        planner.remember("not now")
    hand.open("/timeline")
    hand.press("Resume")
    hand.sees("Remembering goes on.")
    assert planner.remember(f"now, by {type(hand).__name__}").status == "inserted"


def test_the_audit_is_narrowed_and_verified(hand: Hand) -> None:
    hand.open("/audit")
    hand.fill("Who", "planner")
    hand.submit()
    said = hand.sees("for to plan the week")
    assert "owner" not in said.replace("owner's page", "")
    hand.press("Verify the record")
    hand.sees("The record is whole")


def test_who_signs_out_sees_nothing_more(hand: Hand, host: Hosted, driver: Chrome) -> None:
    hand.open("/trash")
    hand.press("Sign out")
    said = hand.sees("You are signed out")
    assert "memdb ui" in said and driver.get_cookie("memdb_session") is None
    hand.open("/timeline")
    hand.sees("You are not signed in.")
    driver.get(host.link())
    hand.open("/trash")
    hand.sees("Trash")


def test_the_page_is_dark_when_it_is_asked_to_be(hand: Hand, driver: Chrome) -> None:
    hand.open("/storage")
    colour = "return getComputedStyle(document.documentElement).backgroundColor"
    light = driver.execute_script(colour)
    hand.press("Dark")
    WebDriverWait(driver, 30, 0.05).until(lambda _: driver.execute_script(colour) != light)
    hand.open("/trash")
    assert driver.execute_script("return document.documentElement.dataset.theme") == "dark"
    hand.press("Auto")
    WebDriverWait(driver, 30, 0.05).until(lambda _: driver.execute_script(colour) == light)


def test_the_first_stop_of_the_tab_key_skips_the_navigation(driver: Chrome, host: Hosted) -> None:
    hand = Keyboard(driver, host.url)
    hand.open("/trash")
    hand.press("Skip to the content")
    assert driver.execute_script("return document.activeElement.id") == "main"


def test_a_slash_goes_to_the_search(driver: Chrome, host: Hosted) -> None:
    hand = Keyboard(driver, host.url)
    hand.open("/?q=dentist")
    driver.switch_to.active_element.send_keys("/")
    assert driver.execute_script("return document.activeElement.id") == "q"


def test_a_wrong_form_comes_back_with_what_was_typed_and_the_focus_on_what_is_wrong(
    driver: Chrome, host: Hosted
) -> None:
    hand = Mouse(driver, host.url)
    hand.open("/profile")
    hand.fill("What it is", "shoe size")
    hand.fill("Its value", "40")
    driver.execute_script(
        "const d = document.getElementById('valid_from'); d.type = 'text'; d.value = 'someday'"
    )
    hand.press("Remember it")
    said = hand.sees("ISO 8601")
    assert "Write times as" in said
    assert driver.execute_script("return document.activeElement.getAttribute('role')") == "alert"
    assert driver.execute_script("return document.getElementById('value').value") == "40"


def test_what_is_announced_comes_into_a_live_region(driver: Chrome, host: Hosted) -> None:
    hand = Mouse(driver, host.url)
    id = host.db.remember("to be announced", namespace="default", dedup="off").id
    hand.open(f"/memory/{id}")
    hand.press("Pin")
    hand.sees("Pinned: nothing will forget it by itself.")
    region = driver.execute_script(
        "const e = document.querySelector('.note').closest('[aria-live]');"
        "return [e.getAttribute('role'), e.getAttribute('aria-live')]"
    )
    assert region == ["status", "polite"]


def test_a_download_is_the_memories_chosen(host: Hosted, driver: Chrome, tmp_path: Path) -> None:
    driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    hand = Mouse(driver, host.url)
    hand.open("/export?kind=event")
    number = host.db.count({"kind": "event"})
    assert f"{number} memories" in hand.text()
    hand.press("Download")
    WebDriverWait(driver, 30, 0.05).until(lambda _: list(tmp_path.glob("memories-*.jsonl")))
    (path,) = tmp_path.glob("memories-*.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert sum('"kind":"event"' in line.replace(" ", "") for line in lines) == number
