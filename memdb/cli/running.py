"""Finding the server that runs for a database, and asking it instead of opening the database.

``server.json`` in the database's directory says where it is and which file has the owner's token.
It may have outlived its server, be another user's, or of another version: whatever is in the way,
there is no server, and the command opens the database itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from memdb import Client

FILE = "server.json"
SOURCE = "cli"
NAMESPACE = "default"


class Running:
    """A client with the command line's namespace and source in its calls."""

    def __init__(self, client: Client, namespace: str | None, zone: str) -> None:
        self._client = client
        # The owner reads everything through a server; a command reads what it would by itself.
        chosen = NAMESPACE if namespace is None else namespace
        self._namespace: dict[str, Any] = {"namespace": chosen}
        self.zone = zone

    def remember(self, text: str | None = None, **fields: Any) -> Any:
        return self._client.remember(text, **{"source": SOURCE, **self._namespace, **fields})

    def recall(self, query: str, **given: Any) -> Any:
        return self._client.recall(query, **self._namespace, **given)

    def context(self, query: str, **given: Any) -> Any:
        return self._client.context(query, **self._namespace, **given)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()


def found(path: str) -> dict[str, Any] | None:
    """What ``server.json`` says, with the ``token``; None where there is none to be used."""
    import memdb

    try:
        said = json.loads((Path(path) / FILE).read_text(encoding="utf-8"))
        token = Path(said["token_file"]).read_text(encoding="utf-8").strip()
        usable = said["version"] == memdb.__version__ and token
        return {**said, "token": token} if usable else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def client_of(path: str, namespace: str | None) -> Running | None:
    """The running server of the database at ``path``; None where none answers."""
    said = found(path)
    if said is None:
        return None
    import memdb

    client = memdb.connect(said["url"], said["token"], ca=said["certificate"])
    try:
        # The first thing asked shows that somebody is there who takes the token.
        return Running(client, namespace, client.settings.time_zone)
    except (memdb.ServerUnavailable, memdb.PermissionDenied):
        client.close()
        return None
