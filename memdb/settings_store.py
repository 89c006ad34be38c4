"""``db.settings``: what the owner set for the whole database, stored in it for all processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memdb import validate
from memdb.engine import Engine
from memdb.retention import config
from memdb.second_look import MAX_TOP, SETTING
from memdb.sizes import parse_bytes
from memdb.times import load_zone, zone_name


class Settings:
    """Attributes that read and write the database itself."""

    __slots__ = ("_engine",)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def time_zone(self) -> str:
        """The zone in which times without an offset are read: an IANA name or ``+HH:MM``."""
        return zone_name(self._engine.zone)

    @time_zone.setter
    def time_zone(self, name: str) -> None:
        load_zone(name)
        self._engine.change_setting("time_zone", name)

    @property
    def disk_budget(self) -> int | None:
        """Bytes that the directory may take, everything included, or None for no limit.

        What does not fit goes down the ladder of fidelity or is evicted by value: see
        ``db.retention``. A write that cannot be made to fit raises ``BudgetExceeded``.
        """
        with self._engine.store.read() as txn:
            stored = self._engine.stored_settings(txn).get("disk_budget")
        return None if stored is None else int(stored)

    @disk_budget.setter
    def disk_budget(self, size: int | str | None) -> None:
        checked = None if size is None else parse_bytes(size, "disk_budget")
        self._engine.change_setting("disk_budget", checked)

    @property
    def policies(self) -> dict[str, Any]:
        """Retention policies as tables, the grammar of ``retention.toml``; empty: none.

        A file of that name in the database's directory goes before these, table by table.
        """
        with self._engine.store.read() as txn:
            return dict(self._engine.stored_settings(txn).get("policies") or {})

    @policies.setter
    def policies(self, tables: Mapping[str, Any] | None) -> None:
        config.parse({} if tables is None else tables)
        self._engine.change_setting("policies", dict(tables or {}))

    @property
    def reembed_top(self) -> int:
        """How many of the closest memories of a space of profile "nano" are embedded again from
        their texts for each question, so that they are ranked exactly. 0: none."""
        with self._engine.store.read() as txn:
            return int(self._engine.stored_settings(txn).get(SETTING, 0))

    @reembed_top.setter
    def reembed_top(self, count: int) -> None:
        self._engine.change_setting(SETTING, validate.integer(count, "reembed_top", 0, MAX_TOP))

    @property
    def remembering_paused(self) -> bool:
        """Whether new memories of every principal are refused: the owner's one switch. What a
        program writes through its own handle is not anybody's."""
        return self._switch("remembering_paused")

    @remembering_paused.setter
    def remembering_paused(self, paused: bool) -> None:
        checked = validate.boolean(paused, "remembering_paused")
        self._engine.change_setting("remembering_paused", checked)

    @property
    def audit_query_text(self) -> bool:
        """Whether rows of the audit keep what was asked in words; not unless the owner says so."""
        return self._switch("audit_query_text")

    @audit_query_text.setter
    def audit_query_text(self, kept: bool) -> None:
        self._engine.change_setting("audit_query_text", validate.boolean(kept, "audit_query_text"))

    def _switch(self, name: str) -> bool:
        with self._engine.store.read() as txn:
            return bool(self._engine.stored_settings(txn).get(name, False))

    def to_dict(self) -> dict[str, object]:
        """Every setting by name."""
        return {
            "time_zone": self.time_zone,
            "disk_budget": self.disk_budget,
            "policies": self.policies,
            "reembed_top": self.reembed_top,
            "remembering_paused": self.remembering_paused,
            "audit_query_text": self.audit_query_text,
        }
