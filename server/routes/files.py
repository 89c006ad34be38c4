"""Routes of files: bring a folder's memories in step with the disk.

Folders are read by the server, so which may be is an allow-list that whoever starts it gives
(``memdb serve --root``); a path is judged by where it really leads.
"""

from __future__ import annotations

import os

from memdb import PermissionDenied
from memdb.server import schemas_owner as schemas
from memdb.server.routing import Call, Route

LONG_S = 600.0


def sync_folder(call: Call) -> schemas.Synced:
    """Make the memories of a folder what its files say now."""
    body: schemas.SyncFolder = call.body
    path = _allowed(body.path, call.services.roots)
    report = call.acting.files.sync(
        path, include=body.include, exclude=body.exclude, allow_empty=body.allow_empty
    )
    return schemas.Synced(report=report)


def list_files(call: Call) -> schemas.FileStates:
    """Every file of the synced folders, with its state."""
    path = call.query.path
    allowed = None if path is None else _allowed(path, call.services.roots)
    return schemas.FileStates(items=list(call.acting.files.status(allowed)))


def _allowed(path: str, roots: tuple[str, ...]) -> str:
    """Where ``path`` really leads, if that is in or below a root; the same error otherwise."""
    try:
        real = os.path.realpath(os.path.expanduser(path))
    except (OSError, ValueError):
        real = ""
    for root in roots:
        if real and os.path.commonpath([root, real]) == root:
            return real
    raise PermissionDenied(
        "the folder is in none that the server may read",
        hint="name it where the server is started: memdb serve --root DIR",
    )


ROUTES = (
    Route("POST", "/v1/files/sync", sync_folder, "bring a folder's memories in step",
          schemas.Synced, body=schemas.SyncFolder, limit_s=LONG_S, tag="files"),
    Route("GET", "/v1/files", list_files, "the files of synced folders", schemas.FileStates,
          query=schemas.FilesQuery, tag="files"),
)  # fmt: skip
