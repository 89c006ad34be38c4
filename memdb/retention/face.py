"""``db.retention``: plans of what to forget, applying and undoing them, and how it stands.

Names and checks; the work is in ``planning``, ``applying`` and ``keeper``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memdb import trash, validate
from memdb.engine import Engine
from memdb.errors import BudgetExceeded
from memdb.maintenance import Maintenance
from memdb.retention import config, leaving, planning, policies, usage
from memdb.retention.applying import Applied, Changed
from memdb.retention.config import PolicyLike
from memdb.retention.planning import Plan
from memdb.sizes import parse_bytes
from memdb.storage.store import Writer
from memdb.validate import TimeLike
from memdb.writer import MemoryWriter


class Retention:
    """What is kept, what goes, and why; nothing goes until the owner asks for it.

    A plan and a run concern the whole database, whatever namespace the handle has.
    """

    def __init__(self, engine: Engine, maintenance: Maintenance, writer: MemoryWriter) -> None:
        self._engine = engine
        self._maintenance = maintenance
        self._keeper = maintenance.keeper
        self._writer = writer

    def plan(
        self,
        policy: PolicyLike = None,
        disk_budget: int | str | None = None,
        now: TimeLike | None = None,
    ) -> Plan:
        """What would become of each memory, and why; nothing is changed.

        ``policy``: a policy of ``memdb.retention``, several, a mapping of settings, or the path of
        a TOML file with such; None: those that are set (``db.settings.policies``,
        ``retention.toml`` in the directory). ``disk_budget`` stands in for
        ``db.settings.disk_budget``. ``now`` is the moment the plan is for: the same content,
        policies and moment give the same plan.

        Raises ``BudgetExceeded`` when pinned memories and facts alone are more than the budget.
        """
        engine = self._engine
        budget = None if disk_budget is None else parse_bytes(disk_budget, "disk_budget")
        moment = engine.now() if now is None else validate.instant_of(now, "now", engine.zone)
        plan = planning.make(engine, self._keeper.wanted(policy, budget), moment)
        if plan.shortfall:
            raise BudgetExceeded(
                f"what is pinned or a fact is {plan.shortfall} bytes over the disk budget",
                hint="raise the budget or unpin memories",
            )
        return plan

    def apply(self, plan: Plan | Mapping[str, Any], *, changed: Changed = "error") -> Applied:
        """Do what a plan says. ``undo`` of the batch it returns brings back what is not final.

        Raises ``Conflict`` when memories changed since the plan was made; with ``changed="skip"``
        those that did are left alone and listed. Raises ``LockHeld`` when a plan with final steps
        meets another process that maintains the database.
        """
        given = plan if isinstance(plan, Plan) else Plan.from_dict(plan)
        self._maintenance.require_lease()
        with self._maintenance.paused():
            applied = self._keeper.apply(given, changed, self._derivation)
        self._maintenance.notify()
        return applied

    def undo(self, batch: str) -> list[str]:
        """Bring back what applying a plan put into the trash, within seven days; the ids.

        Raises ``NotFound`` when nothing of the batch is there any more.
        """
        validate.string(batch, "batch")
        done = self._writer.restore("", None, batch)
        self._maintenance.notify()
        return done

    def status(self) -> dict[str, Any]:
        """The budget and what it limits, the policies that are set, and the last run's report."""
        engine = self._engine
        wanted = self._keeper.wanted()
        with engine.store.read() as txn:
            used = usage.measure(engine, txn)
            waiting = len(leaving.rows(txn))
            in_trash = [(name, at.isoformat(), len(rows)) for name, at, rows in trash.batches(txn)]
        return {
            "disk_budget": wanted.disk_budget,
            "bytes": {
                "disk": sum(usage.disk_bytes(engine.store.path).values()),
                "files": used.files,
                "store_live": used.live,
                "bound": used.bound,
            },
            "policies": [policies.describe(one) for one in wanted.policies],
            "from_file": (engine.store.path / config.FILE).exists(),
            "trash": [{"batch": n, "at": at, "memories": count} for n, at, count in in_trash],
            "leaving": waiting,
            "last": self._keeper.last(),
        }

    def _derivation(self, made: dict[str, Any]) -> Any:
        engine = self._engine
        fields = {"source": "memdb:consolidation", **made}
        draft = validate.draft(
            fields,
            zone=engine.zone,
            now=engine.now(),
            default_namespace="default",
            default_source="memdb:consolidation",
        )
        insert = self._writer.insertion([draft], dedup="off")

        def run(txn: Writer) -> Any:
            return insert(txn)

        return run
