"""Grants, tokens and ``Acting``: what a principal may do, see and write."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import memdb
from memdb import Conflict, Grant, InvalidArgument, NotFound, PermissionDenied, Principal
from memdb.access.grant import ACTIONS

EVERYTHING = {"namespace": {"$exists": True}}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[memdb.Database]:
    with memdb.open(tmp_path / "life", embedder="none", namespace="home") as opened:
        yield opened


def agent(db: memdb.Database, **grant: Any) -> memdb.Acting:
    """An agent named planner that may do everything to all it sees in the namespace home."""
    given = {"actions": ACTIONS, "namespace": "home", **grant}
    return db.acting(Principal("planner", Grant(**given)))


def test_a_grant_is_read_and_add_in_its_own_namespace_unless_it_says_more(
    db: memdb.Database,
) -> None:
    db.remember("at home")
    acting = db.acting(db.tokens.authenticate(db.tokens.create("planner").secret))
    written = acting.remember("of the planner")
    assert written.memory.namespace == "planner"
    assert written.memory.source == "agent:planner"
    assert [memory.text for memory in acting.iter()] == ["of the planner"]
    for refused in (
        lambda: acting.forget(written.id),
        lambda: acting.update(written.id, tags=["x"]),
        lambda: acting.erase(written.id),
        lambda: acting.settings.to_dict(),
        lambda: acting.retention.status(),
        lambda: acting.audit.rows(),
        lambda: acting.tokens.create("other", owner=True),
    ):
        with pytest.raises(PermissionDenied):
            refused()


@pytest.mark.parametrize("action", [one for one in ACTIONS if one != "read"])
def test_an_action_that_is_not_granted_is_refused(db: memdb.Database, action: str) -> None:
    made = db.remember("a memory")
    calls: dict[str, Callable[[memdb.Acting], object]] = {
        "add": lambda one: one.remember("another"),
        "update": lambda one: one.update(made.id, tags=["x"]),
        "forget": lambda one: one.forget(made.id),
        "feedback": lambda one: one.feedback(made.id, [made.id]),
        "sync": lambda one: one.files.status(),
        "report": lambda one: one.report(made.id),
        "erase": lambda one: one.erase(made.id),
        "retention": lambda one: one.retention.status(),
        "export": lambda one: one.export(db.path / "tmp" / "out.jsonl"),
        "audit": lambda one: one.audit.verify(),
        "admin": lambda one: one.settings.to_dict(),
    }
    others = [one for one in ACTIONS if one != action]
    with pytest.raises(PermissionDenied, match=action):
        calls[action](agent(db, actions=others))
    calls[action](agent(db, actions=[action]))


def test_no_actions_are_none_and_no_purposes_are_none(db: memdb.Database) -> None:
    db.remember("a memory")
    with pytest.raises(PermissionDenied):
        agent(db, actions=[]).count()
    with pytest.raises(PermissionDenied):
        agent(db, purposes=[]).count()
    principal = Principal("planner", Grant(namespace="home", purposes=["dinner"]))
    assert db.acting(principal, purpose="dinner").count() == 1
    with pytest.raises(PermissionDenied):
        db.acting(principal, purpose="gossip").count()
    with pytest.raises(PermissionDenied):
        db.acting(principal).count()


def test_an_empty_list_in_a_filter_selects_nothing(db: memdb.Database) -> None:
    db.remember("a memory")
    assert agent(db, where={"namespace": {"$in": []}}).count() == 0
    assert agent(db, where={"tags": {"$all": []}}).count() == 0
    with pytest.raises(InvalidArgument):
        Grant(where={})


def test_deny_wins_over_where(db: memdb.Database) -> None:
    db.remember("seen", tags=["a"])
    db.remember("denied", tags=["a", "diary"])
    acting = agent(db, where={"tags": "a"}, deny={"tags": "diary"})
    assert [one.text for one in acting.iter()] == ["seen"]


def test_sensitivity_is_a_ceiling_and_an_unknown_label_is_above_all(db: memdb.Database) -> None:
    for label in (None, "public", "personal", "private", "secret", "eyes only"):
        db.remember(f"labelled {label}", sensitivity=label)
    seen = {
        ceiling: len(agent(db, sensitivity=ceiling).list().items)
        for ceiling in (None, "public", "personal", "private", "secret")
    }
    assert seen == {None: 1, "public": 2, "personal": 3, "private": 4, "secret": 5}
    acting = agent(db, sensitivity="personal")
    assert acting.remember("mine", sensitivity="public").status == "inserted"
    for label in ("private", "eyes only"):
        with pytest.raises(PermissionDenied):
            acting.remember("mine", sensitivity=label)
    assert db.acting(db.tokens.owner()).count() == 7


def test_source_and_namespace_are_the_grants(db: memdb.Database) -> None:
    acting = agent(db, source="agent:chef")
    written = acting.remember("a recipe", source="agent:chef", namespace="home")
    assert written.memory.source == "agent:chef"
    for refused in (
        lambda: acting.remember("x", source="app:whatsapp"),
        lambda: acting.remember("x", namespace="elsewhere"),
        lambda: acting.remember_many([{"text": "x", "namespace": "home/under"}]),
        lambda: acting.profile.set("city", "Rome", source="form"),
        lambda: acting.history.append("pulse", data=61, namespace="elsewhere"),
        lambda: acting.history.append("pulse", data=61, source="app:watch"),
        lambda: acting.update(written.id, source="file:///x"),
    ):
        with pytest.raises(PermissionDenied):
            refused()
    assert acting.update(written.id, tags=["x"]).memory.source == "agent:chef"


def test_a_write_that_the_grant_does_not_cover_is_refused(db: memdb.Database) -> None:
    acting = agent(db, where={"kind": "event"})
    assert acting.remember("a meeting", kind="event").status == "inserted"
    with pytest.raises(PermissionDenied):
        acting.remember("a note")
    with pytest.raises(PermissionDenied):
        acting.history.append("pulse", data=61)
    assert db.count() == 1


def test_what_it_sees_elsewhere_it_may_not_change(db: memdb.Database) -> None:
    other = db.remember("of another namespace", namespace="garden")
    acting = agent(db, where=EVERYTHING)
    assert acting.get(other.id) is not None
    with pytest.raises(PermissionDenied):
        acting.update(other.id, tags=["x"])
    assert acting.forget(other.id).ids == ()
    assert acting.forget(where={"kind": "note"}).ids == ()
    assert acting.erase(other.id).counts["memories"] == 0


def test_hidden_and_absent_ids_answer_alike(db: memdb.Database) -> None:
    hidden = db.remember("hidden", sensitivity="secret", external_id="x-1").id
    sample = db.history.append("pulse", data=61, namespace="garden").id
    db.forget(gone := db.remember("forgotten").id)
    acting = agent(db)

    def answers(id: str) -> list[object]:
        found: list[object] = []
        for ask in (
            lambda: acting.get(id),
            lambda: acting.get_many([id]),
            lambda: acting.versions(id),
            lambda: acting.update(id, tags=["x"]),
            lambda: acting.feedback("01M8G343ZR8T9BNTV8SZNTP2JT", [id]),
            lambda: acting.forget(id).ids,
            lambda: acting.report(id),
            lambda: acting.remember("derived", derived_from=[id]),
            lambda: acting[id],
            lambda: acting.erase(id).counts,
        ):
            try:
                found.append(ask())
            except memdb.MemdbError as error:
                found.append((type(error), str(error), error.hint))
        return found

    absent = "01M8G343ZR8T9BNTV8SZNTP2JZ"
    assert answers(hidden) == answers(absent)
    assert answers(gone)[:3] == answers(absent)[:3]
    assert acting.get(sample) is None
    assert acting.get(external_id="x-1") is None


def test_the_names_that_must_be_unique_are_conflicts(db: memdb.Database) -> None:
    db.remember("hidden", sensitivity="secret", external_id="x-1")
    db.profile.set("city", "Rome", sensitivity="secret")
    acting = agent(db)
    for policy in ("error", "skip", "replace"):
        with pytest.raises(Conflict):
            acting.remember("mine", external_id="x-1", on_conflict=policy)
    with pytest.raises(Conflict):
        acting.profile.set("city", "Paris")
    assert acting.profile.get("city") is None
    assert acting.profile.versions("city") == []
    assert acting.profile.items() == {}
    assert db.profile.get("city") == "Rome"


def test_a_hidden_memory_is_no_duplicate(db: memdb.Database) -> None:
    fields = {"tags": ["x"], "sensitivity": "public"}
    hidden = db.remember("the same words", **fields)
    acting = agent(db, sensitivity="public", deny={"source": hidden.memory.source})
    for dedup in ("exact", "near"):
        written = acting.remember("the same words", dedup=dedup, **fields)
        assert written.id != hidden.id
        assert written.memory.links == ()
    assert written.status == "duplicate"


def test_what_a_memory_tells_of_others_is_told_of_visible_ones(db: memdb.Database) -> None:
    secret = db.remember("a secret", sensitivity="secret").id
    plain = db.remember("no secret").id
    both = db.remember("derived", derived_from=[secret, plain]).id
    alone = db.remember("derived too", derived_from=[secret]).id
    acting = agent(db)
    found = acting.get(both)
    assert found is not None
    assert found.derived_from == (plain,)
    assert acting.values("derived_from") == [(plain, 1)]
    assert acting.count({"derived_from": secret}) == 0
    assert [one.id for one in acting.iter({"derived_from": {"$exists": True}})] == [both]
    assert acting.count({"derived_from": {"$ne": secret}}) == 3
    assert [one.id for one in acting.iter({"derived_from": {"$exists": False}})] == [plain, alone]


def test_an_earlier_version_that_the_grant_does_not_cover_is_not_shown(
    db: memdb.Database,
) -> None:
    made = db.remember("first words", sensitivity="secret")
    db.update(made.id, text="second words", sensitivity=None)
    db.update(made.id, text="third words")
    acting = agent(db)
    assert [one.text for one in acting.versions(made.id)] == ["second words", "third words"]
    first = db.versions(made.id)[0]
    assert first.recorded_at is not None
    assert acting.get(made.id, as_of=first.recorded_at) is None


def test_the_owner_reads_everything_and_writes_like_the_program(db: memdb.Database) -> None:
    db.remember("elsewhere", namespace="garden", sensitivity="secret")
    owner = db.acting(db.tokens.owner())
    written = owner.remember("at home", source="form")
    assert (written.memory.namespace, written.memory.source) == ("home", "form")
    assert owner.count() == 2
    assert owner.stats()["memories"] == 2


def test_pausing_remembering_refuses_every_new_memory(db: memdb.Database, tmp_path: Path) -> None:
    acting, owner = agent(db), db.acting(db.tokens.owner())
    made = acting.remember("before")
    owner.settings.remembering_paused = True
    (tmp_path / "notes").mkdir()
    for refused in (
        lambda: acting.remember("x"),
        lambda: owner.remember_many(["x"]),
        lambda: acting.profile.set("a", 1),
        lambda: acting.history.append("pulse", data=1),
        lambda: acting.files.sync(tmp_path / "notes"),
    ):
        with pytest.raises(PermissionDenied, match="paused"):
            refused()
    assert acting.update(made.id, tags=["x"]).status == "replaced"
    owner.settings.remembering_paused = False
    assert acting.remember("after").status == "inserted"


# --- tokens ---------------------------------------------------------------------------------


def test_a_token_is_known_by_its_secret_alone_until_it_ends(db: memdb.Database) -> None:
    made = db.tokens.create("planner", Grant(namespace="home"), expires_in="90d")
    assert made.secret not in repr(made)
    assert db.tokens.authenticate(made.secret).name == "planner"
    with pytest.raises(Conflict):
        db.tokens.create("planner")
    refusals = set()
    for wrong in ("", "mdb_", made.secret[:-1], made.secret + "x", "mdb_" + "0" * 59, "é" * 63):
        with pytest.raises(PermissionDenied) as refused:
            db.tokens.authenticate(wrong)
        refusals.add((str(refused.value), refused.value.hint))
    assert db.tokens.named("planner") == db.tokens.authenticate(made.secret)
    db.tokens.pause("planner")
    for change in (lambda: None, lambda: db.tokens.revoke("planner")):
        change()
        with pytest.raises(PermissionDenied) as refused:
            db.tokens.authenticate(made.secret)
        refusals.add((str(refused.value), refused.value.hint))
        with pytest.raises(PermissionDenied) as refused:
            db.tokens.named("planner")
        refusals.add((str(refused.value), refused.value.hint))
    assert len(refusals) == 1
    with pytest.raises(NotFound):
        db.tokens.resume("planner")
    assert db.tokens.create("planner").id != made.id
    assert [one.revoked_at is not None for one in db.tokens.list()] == [True, False]


def test_a_paused_token_is_resumed_with_its_grant(db: memdb.Database) -> None:
    grant = Grant(
        actions=["read"],
        where={"event_time": {"$gte": datetime(2024, 1, 1, tzinfo=UTC)}},
        deny={"tags": "diary"},
        sensitivity="private",
        purposes=["dinner"],
        rate_per_minute=60,
        expires_at=datetime(2030, 1, 1, tzinfo=UTC),
    )
    made = db.tokens.create("planner", grant)
    assert db.tokens.pause("planner").paused
    assert not db.tokens.resume("planner").paused
    principal = db.tokens.authenticate(made.secret)
    (known,) = db.tokens.list()
    assert known.grant == principal.grant == Grant.from_dict(principal.grant.to_dict())
    assert principal.grant.rate_per_minute == 60
    assert principal.grant.compiled("x", UTC) == grant.compiled("x", UTC)


def test_the_secret_is_nowhere_in_the_directory(db: memdb.Database) -> None:
    made = db.tokens.create("planner")
    acting = db.acting(db.tokens.authenticate(made.secret))
    acting.remember("something")
    acting.count()
    secret = made.secret[-43:].encode()
    files = [one for one in db.path.rglob("*") if one.is_file() and one.name != "lock.mdb"]
    assert files
    assert not [one for one in files if secret in one.read_bytes()]


def test_a_grant_that_has_expired_refuses(db: memdb.Database) -> None:
    with pytest.raises(PermissionDenied, match="expired"):
        agent(db, expires_at=datetime(2020, 1, 1, tzinfo=UTC)).count()


def test_a_grant_whose_filter_does_not_compile_refuses_everything(db: memdb.Database) -> None:
    with pytest.raises(memdb.FilterError):
        Grant(where={"knd": "note"})
    grant = Grant(actions=ACTIONS, namespace="home")
    object.__setattr__(grant, "where", {"not a field": 1})
    acting = db.acting(Principal("planner", grant))
    for refused in (
        lambda: acting.count(),
        lambda: acting.remember("x"),
        lambda: acting.audit.rows(),
        lambda: acting.settings.to_dict(),
    ):
        with pytest.raises(PermissionDenied, match="does not compile"):
            refused()


# --- the surface ----------------------------------------------------------------------------


def test_acting_has_the_verbs_of_a_database_with_their_parameters() -> None:
    own = {"acting", "close", "path", "tokens", "audit"}
    for name, method in inspect.getmembers(memdb.Database, inspect.isfunction):
        if name.startswith("_") or name in own:
            continue
        acting = getattr(memdb.Acting, name)
        assert list(inspect.signature(acting).parameters) == list(
            inspect.signature(method).parameters
        ), name
