"""The database as a principal with a grant has it: what it reads through, what it may write.

Reading is the view's. Writing follows rules of its own: namespace and source come from the grant,
and naming others is refused; so is a label of sensitivity above the grant's, and a memory that the
grant would not cover. Nothing is derived from, replaced or ended that is out of sight; where a name
must be unique (the caller's own ids, facts) that is a ``Conflict``. It knows no audit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from memdb.access.grant import Principal
from memdb.access.view import View
from memdb.database import Database
from memdb.errors import InvalidArgument, PermissionDenied
from memdb.reader import covers
from memdb.sharing import Shared
from memdb.storage import series
from memdb.storage.series import SeriesKey
from memdb.storage.series_codec import Sample
from memdb.types import Memory
from memdb.validate import Draft
from memdb.writer import with_changes


class OwnersHandle(Database):
    """Everything: reads cover all namespaces, writes go where the program's own would."""

    def __init__(self, shared: Shared, *, namespace: str, source: str) -> None:
        super().__init__(shared, namespace=namespace, source=source)
        self._reads = self._acts = ""


class GrantedHandle(Database):
    """What a grant allows. Raises ``PermissionDenied`` where its filter does not compile."""

    def __init__(self, shared: Shared, principal: Principal) -> None:
        engine = shared.engine
        view = View(engine, principal.sees(engine.zone))
        super().__init__(shared, namespace=principal.namespace, source=principal.source, view=view)
        self._reads = ""
        self._view = view
        self._labels = principal.grant.labels

    # --- what may be written --------------------------------------------------------------

    def _checker(self) -> Callable[[Mapping[str, Any]], Draft]:
        check = super()._checker()

        def granted(fields: Mapping[str, Any]) -> Draft:
            if not isinstance(fields, Mapping):
                raise InvalidArgument("an item must be a mapping or a string", field="items")
            self._require_own(fields)
            draft = check(fields)
            self._require_covered(draft.memory)
            return draft

        return granted

    def _draft_of_file(self, fields: Mapping[str, Any]) -> Draft:
        draft = super()._checker()(fields)
        self._require_covered(draft.memory)
        return draft

    def _redraft(self, old: Memory, fields: Mapping[str, Any]) -> Draft:
        if not covers(self._acts, old):
            raise PermissionDenied(f"the grant changes memories of {self._acts} only")
        self._require_own(fields)
        whole = {**with_changes(old, fields), "source": self._source}
        draft = super()._checker()(whole)
        self._require_covered(draft.memory)
        return draft

    def _require_own(self, fields: Mapping[str, Any]) -> None:
        self._write_namespace(fields.get("namespace"))
        self._write_source(fields.get("source"))
        label = fields.get("sensitivity")
        if label is not None and label not in self._labels:
            raise PermissionDenied(
                "the grant does not reach that sensitivity",
                hint=f"it may give {', '.join(self._labels) or 'none'}",
            )

    def _require_covered(self, memory: Memory) -> None:
        if not self._view.shows(memory.replace(recorded_at=self._engine.now())):
            raise PermissionDenied("the grant does not cover such a memory")

    def _require_samples(self, key: SeriesKey, samples: Sequence[Sample]) -> None:
        for sample in samples:
            found = series.Found(sample.event_us, bytes(8), 0, sample)
            if not self._view.shows(series.to_memory(key, found)):
                raise PermissionDenied("the grant does not cover such a memory")

    def _write_namespace(self, namespace: str | None) -> str:
        if namespace is not None and namespace != self._namespace:
            raise PermissionDenied(
                "the grant writes to another namespace", hint=f"leave it out: {self._namespace}"
            )
        return self._namespace

    def _write_source(self, source: str | None) -> str:
        if source is not None and source != self._source:
            raise PermissionDenied(
                "the grant says what the source is", hint=f"leave it out: {self._source}"
            )
        return self._source
