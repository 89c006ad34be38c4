"""``Acting``: the verbs of a database, done as somebody, checked and told.

Made anew for each request, which it holds nothing of but who asks and why. Each verb has the name
and the parameters it has on ``Database``; what it may do, see and write is the principal's grant.
Every call leaves a row in the audit before it returns, be it refused; where no row can be left,
nothing is answered. It does not know how rows are kept nor how a grant limits what is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from memdb import settings, validate
from memdb.access import faces
from memdb.access.auditing import Called, Told, asked_for
from memdb.access.calls import Verb, in_chunks, verb
from memdb.access.control import UNREAD, Access, Switches
from memdb.access.grant import Principal
from memdb.database import Database
from memdb.errors import MemdbError, NotFound, PermissionDenied
from memdb.storage.store import Writer
from memdb.types import Memory

_ITER = Verb("iter", "read")


def _replaces(given: Mapping[str, Any]) -> str | None:
    """Writing over what is there is an update."""
    return "update" if given.get("on_conflict") == "replace" else None


def _one(result: object) -> Told:
    return Told(count=1)


class Acting:
    """A database as one principal has it. Made by ``Database.acting``; not to be kept."""

    def __init__(
        self,
        database: Database,
        access: Access,
        principal: Principal,
        *,
        purpose: str | None,
        transport: str,
        tool: str | None,
    ) -> None:
        self.principal = principal
        self.purpose = validate.optional_string(purpose, "purpose")
        self._database = database
        self._access = access
        self._transport = transport
        self._tool = tool

    # --- writing --------------------------------------------------------------------------

    remember = verb("add", Database.remember, brings=True, asked=frozenset(), also=_replaces)
    remember_many = verb(
        "add", Database.remember_many, brings=True, asked=frozenset(), also=_replaces
    )
    update = verb("update", Database.update, asked=frozenset())
    feedback = verb("feedback", Database.feedback)
    forget = verb("forget", Database.forget)
    restore = verb("forget", Database.restore)
    erase = verb("erase", Database.erase, asked=frozenset(), tell=_one, tell_written=_one)
    import_ = verb("admin", Database.import_, whole=True, brings=True)

    # --- reading --------------------------------------------------------------------------

    get = verb("read", Database.get)
    get_many = verb("read", Database.get_many)
    versions = verb("read", Database.versions)
    count = verb("read", Database.count)
    list = verb("read", Database.list)
    values = verb("read", Database.values)
    namespaces = verb("read", Database.namespaces)
    recall = verb("read", Database.recall)
    recall_within = verb("read", Database.recall_within)
    context = verb("read", Database.context)
    timeline = verb("read", Database.timeline)
    stats = verb("read", Database.stats)
    trash = verb("forget", Database.trash)
    report = verb("report", Database.report)
    export = verb("export", Database.export)

    # --- the whole database -----------------------------------------------------------------

    receipts = verb("admin", Database.receipts, whole=True)
    check = verb("admin", Database.check, whole=True)
    compact = verb("admin", Database.compact, whole=True)
    snapshot = verb("admin", Database.snapshot, whole=True)
    reembed = verb("admin", Database.reembed, whole=True, asked=frozenset())

    def iter(self, where: Mapping[str, Any] | None = None) -> Iterator[Memory]:
        """Every memory that passes the filter, in the order written; a row of the audit for each
        few hundred of them, before they are given."""
        return self._iterate(_ITER, lambda handle: handle.iter(where), {"where": where})

    def __getitem__(self, id: str) -> Memory:
        memory = self.get(id)
        if memory is None:
            raise NotFound("no memory has that id")
        return memory

    # --- faces ------------------------------------------------------------------------------

    @property
    def profile(self) -> faces.ActingProfile:
        """Facts; see ``Database.profile``."""
        return faces.ActingProfile(self)

    @property
    def history(self) -> faces.ActingHistory:
        """What happened; see ``Database.history``."""
        return faces.ActingHistory(self)

    @property
    def files(self) -> faces.ActingFiles:
        """Folders of documents; see ``Database.files``."""
        return faces.ActingFiles(self)

    @property
    def spaces(self) -> faces.ActingSpaces:
        """Embedding spaces; see ``Database.spaces``."""
        return faces.ActingSpaces(self)

    @property
    def retention(self) -> faces.ActingRetention:
        """What to forget; see ``Database.retention``."""
        return faces.ActingRetention(self)

    @property
    def settings(self) -> faces.ActingSettings:
        """What the owner set; see ``Database.settings``."""
        return faces.ActingSettings(self)

    @property
    def tokens(self) -> faces.ActingTokens:
        """Who may act; see ``Database.tokens``."""
        return faces.ActingTokens(self)

    @property
    def audit(self) -> faces.ActingAudit:
        """What was done; see ``Database.audit``."""
        return faces.ActingAudit(self)

    def __repr__(self) -> str:
        return f"<{self._database!r} as {self.principal.name!r}>"

    # --- how a call is carried out ------------------------------------------------------------

    def _perform(
        self,
        verb: Verb,
        call: Callable[[Any], Any],
        asked: Mapping[str, Any],
        query: object = None,
        also: str | None = None,
    ) -> Any:
        """Check, do, tell; in that order, and nothing is returned that is not told."""
        switches = self._switches(verb, asked)
        called = self._called(verb, asked, query, switches)
        try:
            handle = self._allowed(verb, also, switches)
            if verb.action == "read":
                result = call(handle)
                told = False
            else:
                result, told = self._write(verb, called, lambda: call(handle))
        except Exception as error:  # noqa: BLE001 - told, then raised again
            self._refuse(called, error)
        if not told:
            self._access.recorder.note(called, verb.tell(result))
        return result

    def _iterate(
        self,
        verb: Verb,
        call: Callable[[Any], Iterator[Memory]],
        asked: Mapping[str, Any],
    ) -> Iterator[Memory]:
        """The same for what is read while it is given; the arguments are checked at once."""
        switches = self._switches(verb, asked)
        called = self._called(verb, asked, None, switches)
        try:
            found = call(self._allowed(verb, None, switches))
        except Exception as error:  # noqa: BLE001 - told, then raised again
            self._refuse(called, error)
        return in_chunks(found, lambda told: self._access.recorder.note(called, told))

    def _write(self, verb: Verb, called: Called, call: Callable[[], Any]) -> tuple[Any, bool]:
        """The result, and whether its row was committed with what it wrote."""
        committed = False

        def beside(txn: Writer, result: Any) -> None:
            nonlocal committed
            told = verb.tell_written(result)
            if told is not None:
                self._access.recorder.commit(txn, called, told)
                committed = True

        with self._access.engine.store.beside(beside):
            return call(), committed

    def _switches(self, verb: Verb, asked: Mapping[str, Any]) -> Switches:
        """What the owner set, read once a call; where that fails, the call has failed."""
        try:
            return self._access.switches()
        except MemdbError as error:
            self._refuse(self._called(verb, asked, None, UNREAD), error)

    def _allowed(self, verb: Verb, also: str | None, switches: Switches) -> Database:
        """The handle that the verb is called on. Raises ``PermissionDenied``."""
        access, principal = self._access, self.principal
        now = access.engine.now()
        for action in (verb.action,) if also is None else (verb.action, also):
            principal.require(action, self.purpose, now)
        if verb.brings and switches.remembering_paused:
            raise PermissionDenied(
                "remembering is paused", hint="the owner's settings have remembering_paused"
            )
        if verb.whole and not principal.owner:
            # A filter that does not compile refuses this as well.
            access.handle(principal, "", "", switches.zone)
            principal = access.tokens.owner()
        database = self._database
        return access.handle(principal, database._namespace, database._source, switches.zone)

    def _called(
        self, verb: Verb, asked: Mapping[str, Any], query: object, switches: Switches
    ) -> Called:
        principal = self.principal
        kept = isinstance(query, str) and switches.audit_query_text
        return Called(
            principal.name,
            principal.token_id or "",
            verb.action,
            verb.name,
            self._transport,
            principal.rule,
            self.purpose,
            self._tool,
            asked_for(asked) if asked else None,
            str(query)[: settings.MAX_QUERY_BYTES] if kept else None,
        )

    def _refuse(self, called: Called, error: Exception) -> NoReturn:
        """Tell of a call that failed, then fail; a row that cannot be left is the worse failure."""
        outcome = error.code if isinstance(error, MemdbError) else "error"
        self._access.recorder.note(called, Told(), outcome)
        raise error
