"""Routes of the database as a whole: statistics, settings, spaces, export and import, health."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from memdb.server import schemas_owner as schemas
from memdb.server.routes.files import LONG_S
from memdb.server.routing import NDJSON, Call, Reply, Route


def stats(call: Call) -> schemas.Statistics:
    """Counts, bytes by component, spaces and the backlog."""
    return schemas.Statistics(stats=call.acting.stats())


def get_settings(call: Call) -> schemas.SettingsObject:
    """What the owner set; for who does not administer, the time zone alone."""
    settings = call.acting.settings
    if call.principal.owner or "admin" in call.principal.grant.actions:
        return schemas.SettingsObject(settings=settings.to_dict())
    return schemas.SettingsObject(settings={"time_zone": settings.time_zone})


def list_spaces(call: Call) -> schemas.SpaceList:
    """The embedding spaces."""
    return schemas.SpaceList(items=list(call.acting.spaces.list()))


def healthz(call: Call) -> schemas.Health:
    """Whether the server answers; it says nothing else."""
    return schemas.Health(status="ok")


def export_memories(call: Call) -> Reply:
    """Every field of memories, a JSON object a line; ``Memdb-Count`` says how many."""
    with _own_file(call.services.db) as file:
        count = call.acting.export(file, "jsonl", call.body.where)
        return Reply(200, file.read_bytes(), NDJSON, (("Memdb-Count", str(count)),))


def import_memories(call: Call) -> schemas.Imported:
    """Read what an export gave; memories whose id exists are left alone."""
    with _own_file(call.services.db) as file:
        file.touch(mode=0o600)
        file.write_bytes(msgspec.json.Encoder().encode_lines(call.body.records))
        return schemas.Imported(added=call.acting.import_(file))


@contextmanager
def _own_file(db: Any) -> Iterator[Path]:
    """A path in the database's own directory for a moment; nothing of it stays."""
    path = Path(db.path) / "tmp" / f"serve-{secrets.token_hex(8)}.jsonl"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


ROUTES = (
    Route("GET", "/v1/healthz", healthz, "whether the server answers", schemas.Health,
          open=True, tag="server"),
    Route("GET", "/v1/stats", stats, "counts and bytes", schemas.Statistics, tag="database"),
    Route("GET", "/v1/settings", get_settings, "what the owner set", schemas.SettingsObject,
          tag="database"),
    Route("GET", "/v1/spaces", list_spaces, "the embedding spaces", schemas.SpaceList,
          tag="database"),
    Route("POST", "/v1/export", export_memories, "every field of memories, a line each",
          str, body=schemas.ExportMemories, limit_s=LONG_S, tag="database",
          content_type=NDJSON),
    Route("POST", "/v1/import", import_memories, "read what an export gave", schemas.Imported,
          body=schemas.ImportMemories, limit_s=LONG_S, body_bytes=256 << 20, tag="database"),
)  # fmt: skip
