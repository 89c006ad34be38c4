"""What one open database has of grants: its tokens, its audit, and the handles that act.

One ``Access`` a database and process, made when it is first asked for. A handle is made once for
each principal and kept, so that acting costs a request next to nothing. It does not know verbs.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from memdb.access.auditing import Audit, Recorder
from memdb.access.grant import Principal
from memdb.access.handle import GrantedHandle, OwnersHandle
from memdb.access.tokens import Tokens
from memdb.database import Database
from memdb.sharing import Shared
from memdb.times import zone_name

_HANDLES = 128
PAUSED = "remembering_paused"
QUERY_TEXT = "audit_query_text"


class Switches(NamedTuple):
    """Settings, and the ``layout_seq`` that they are of."""

    layout_seq: int
    remembering_paused: bool
    audit_query_text: bool
    zone: str


UNREAD = Switches(-1, False, False, "")


class Access:
    """Tokens, audit and handles of one open database."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.engine = shared.engine
        self.tokens = Tokens(shared.engine)
        self.audit = Audit(shared.engine)
        self.recorder = Recorder(shared.engine)
        self._guard = threading.Lock()
        self._handles: dict[tuple[int, str, str, str], tuple[Principal, Database]] = {}
        self._switches = UNREAD

    def handle(self, principal: Principal, namespace: str, source: str, zone: str) -> Database:
        """What a principal reads and writes through; namespace and source are the owner's. A
        grant's times may be in the ``zone`` of the moment.

        Raises ``PermissionDenied`` where the grant's filter does not compile.
        """
        key = (id(principal), zone, *((namespace, source) if principal.owner else ("", "")))
        found = self._handles.get(key)
        if found is not None:
            return found[1]
        made = (
            OwnersHandle(self._shared, namespace=namespace, source=source)
            if principal.owner
            else GrantedHandle(self._shared, principal)
        )
        with self._guard:
            if len(self._handles) >= _HANDLES:
                self._handles.clear()
            self._handles[key] = (principal, made)  # kept with it, so that its id is its own
        return made

    def switches(self) -> Switches:
        """The owner's settings that every call looks at, as they are now."""
        engine = self.engine
        with engine.store.read() as txn:
            cached = self._switches
            if cached.layout_seq != txn.state.layout_seq:
                stored = engine.stored_settings(txn)
                cached = self._switches = Switches(
                    txn.state.layout_seq,
                    bool(stored.get(PAUSED)),
                    bool(stored.get(QUERY_TEXT)),
                    zone_name(engine.zone_in(txn)),
                )
        return cached

    def close(self) -> None:
        """Make the audit last."""
        self.recorder.close()
