"""What one open database has of grants: its tokens, its audit, and the handles that act.

One ``Access`` a database and process, made when it is first asked for. A handle is made once for
each principal and kept, so that acting costs a request next to nothing. It does not know verbs.
"""

from __future__ import annotations

import threading

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


class Access:
    """Tokens, audit and handles of one open database."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.engine = shared.engine
        self.tokens = Tokens(shared.engine)
        self.audit = Audit(shared.engine)
        self.recorder = Recorder(shared.engine)
        self._guard = threading.Lock()
        self._handles: dict[tuple[str, bytes, str], Database] = {}
        self._switches: tuple[int, bool, bool] = (-1, False, False)

    def handle(self, principal: Principal, namespace: str, source: str) -> Database:
        """What a principal reads and writes through; the last two are the owner's.

        Raises ``PermissionDenied`` where the grant's filter does not compile.
        """
        if principal.owner:
            key = ("", namespace.encode(), source)
        else:
            key = (principal.name, principal.grant.key, zone_name(self.engine.zone))
        found = self._handles.get(key)
        if found is None:
            with self._guard:
                found = self._handles.get(key)
                if found is None:
                    if len(self._handles) >= _HANDLES:
                        self._handles.clear()
                    found = (
                        OwnersHandle(self._shared, namespace=namespace, source=source)
                        if principal.owner
                        else GrantedHandle(self._shared, principal)
                    )
                    self._handles[key] = found
        return found

    def switches(self) -> tuple[bool, bool]:
        """Whether remembering is paused, and whether the audit keeps what was asked in words."""
        engine = self.engine
        with engine.store.read() as txn:
            cached = self._switches
            if cached[0] != txn.state.layout_seq:
                stored = engine.stored_settings(txn)
                paused, kept = bool(stored.get(PAUSED)), bool(stored.get(QUERY_TEXT))
                cached = self._switches = (txn.state.layout_seq, paused, kept)
        return cached[1:]

    def close(self) -> None:
        """Make the audit last."""
        self.recorder.close()
