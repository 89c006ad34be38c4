"""What a caller asks of a ``VectorIndex`` directory, against what is stored there.

It knows settings; it does not know files or transactions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from memdb import settings
from memdb.errors import Conflict, DimensionMismatch, InvalidArgument
from memdb.index import engines
from memdb.index.protocol import Metric, Profile, SpaceSpec
from memdb.index.reads import Access
from memdb.vector_book import FORMAT, PLAIN_FORMAT, State

BOOK_BYTES: Final = 9
"""Memory that a slot takes in the book."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller asks of an index; None is "as stored", or the default for a new one."""

    dim: int | None = None
    metric: str | None = None
    kind: str | None = None
    profile: str | None = None
    params: Mapping[str, Any] | None = None

    def new_state(self) -> State:
        if self.dim is None:
            raise InvalidArgument("dim is needed to make an index", field="dim")
        spec = SpaceSpec(
            dim=self.dim,
            metric=cast(Metric, self.metric or "cosine"),
            profile=cast(Profile, self.profile or settings.DEFAULT_PROFILE),
        )
        kind = self.kind or "flat"
        if kind != "flat" and spec.metric == "hamming":
            raise InvalidArgument("a hamming index is flat", field="kind")
        if kind == "ssd" and not spec.has_codes:
            raise InvalidArgument(f"an index of profile {spec.profile!r} is flat", field="kind")
        params = engines.complete_params(kind, self._stored_params(kind, self.kind is None))
        return State(
            format=FORMAT if kind == "ssd" else PLAIN_FORMAT,
            kind=kind,
            params=params,
            spec=spec.to_dict(),
            auto=self.kind is None,
        )

    def _stored_params(self, kind: str, auto: bool) -> dict[str, Any]:
        """Those params that are the index's: without a handle's, where it may have any."""
        given = dict(self.params or {})
        if kind == "ssd" or auto:
            for name in engines.OF_HANDLE:
                given.pop(name, None)
        return given

    def access(self, budget_bytes: int) -> Access:
        """How this handle's engine uses memory."""
        given = {name: value for name, value in (self.params or {}).items()
                 if name in engines.OF_HANDLE}  # fmt: skip
        return Access(budget_bytes, BOOK_BYTES, **given)

    def check(self, state: State) -> None:
        """``DimensionMismatch`` or ``Conflict`` unless this is what is stored."""
        spec = SpaceSpec.from_dict(state.spec)
        if self.dim is not None and self.dim != spec.dim:
            raise DimensionMismatch(
                f"the index has {spec.dim} dimensions, not {self.dim}", field="dim"
            )
        for field, wanted, stored in (
            ("metric", self.metric, spec.metric),
            ("kind", self.kind, state.kind),
            ("profile", self.profile, spec.profile),
        ):
            if wanted is not None and wanted != stored:
                raise Conflict(f"the index has {field} {stored!r}, not {wanted!r}")
        params = self._stored_params(state.kind, state.auto)
        if params:
            engines.complete_params(state.kind, params)
            for name, value in params.items():
                if value != state.params.get(name):
                    raise Conflict(
                        f"the index has {name} {state.params.get(name)!r}, not {value!r}"
                    )
