"""The entry of memdb in a host application's configuration: what it says, and writing it.

Each host has one JSON file of its own with a mapping of servers. The entry names this very Python
and the database by absolute paths, since a host starts it from anywhere, and the token it serves
as by name; no secret is written. Everything else in the file stays as it is, in its order; what was
there is copied beside it first, and the file changes whole or not at all. A file that is not plain
JSON (VS Code allows comments, which would be lost), says a name twice or is not the shape expected
is left alone: the caller prints the entry instead.

Locations, of the user: Claude Desktop ``claude_desktop_config.json``, Claude Code
``~/.claude.json``, Cursor ``~/.cursor/mcp.json``, VS Code ``mcp.json`` of its default profile.
This file knows no token and no database.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from memdb import Conflict, InvalidArgument

NAME: Final = "memdb"
_INDENT: Final = re.compile(r"\n([ \t]+)\S")
MOST_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Host:
    """One application: the name of its mapping of servers, and where its file is."""

    name: str
    servers: str
    place: Callable[[], Path]
    typed: bool = True  # its entries say that they are of type "stdio"


def _settings(application: str, *rest: str) -> Path:
    """Where an application keeps its settings on this platform."""
    if sys.platform == "darwin":
        folder = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        folder = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    else:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return folder.joinpath(application, *rest)


HOSTS: Final = {
    host.name: host
    for host in (
        Host("claude-desktop", "mcpServers",
             lambda: _settings("Claude", "claude_desktop_config.json"), typed=False),
        Host("vscode", "servers", lambda: _settings("Code", "User", "mcp.json")),
        Host("claude-code", "mcpServers", lambda: Path.home() / ".claude.json"),
        Host("cursor", "mcpServers", lambda: Path.home() / ".cursor" / "mcp.json"),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Installed:
    """What ``install`` did: the file, the copy of what it was, and whether it changed."""

    path: Path
    backup: Path | None
    changed: bool


def entry(host: Host, database: Path, token: str) -> dict[str, Any]:
    """What the host is told to start."""
    words = ["-m", "memdb", "--db", str(database.expanduser().resolve()), "mcp", "--as", token]
    kind = {"type": "stdio"} if host.typed else {}
    return {**kind, "command": os.path.abspath(sys.executable), "args": words}


def snippet(host: Host, added: Mapping[str, Any]) -> str:
    """The entry as it stands in an otherwise empty file."""
    return json.dumps({host.servers: {NAME: added}}, indent=2, ensure_ascii=False)


def install(host: Host, added: Mapping[str, Any]) -> Installed:
    """Put the entry into the host's file. Raises ``InvalidArgument`` (the file is left alone)
    and ``Conflict`` (it changed meanwhile)."""
    path = host.place()
    target = path.resolve()  # a link to a file kept elsewhere stays a link
    before = _read(target)
    settings = _parsed(before, path) if before.strip() else {}
    servers = settings.setdefault(host.servers, {})
    if not isinstance(servers, dict):
        raise _left_alone(path, f'"{host.servers}" in it is not an object')
    if servers.get(NAME) == dict(added):
        return Installed(path, None, False)
    servers[NAME] = dict(added)
    text = before.decode("utf-8-sig") if before else ""
    after = json.dumps(settings, indent=_indent_of(text), ensure_ascii=False) + "\n"
    if "\r\n" in text:
        after = after.replace("\n", "\r\n")
    target.parent.mkdir(parents=True, exist_ok=True)
    backup = _back_up(target) if target.exists() else None
    _replace(target, before, after.encode())
    return Installed(path, backup, True)


# --- the file -------------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            found = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return b""
    if len(found) > MOST_BYTES:
        raise _left_alone(path, "it is too large")
    return found


def _parsed(raw: bytes, path: Path) -> dict[str, Any]:
    """The settings; anything that writing them again would lose is an error."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise _left_alone(path, "a name occurs twice in one object")
        return found

    def number(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise _left_alone(path, "a number in it is beyond 64-bit floating point")
        return value

    def constant(name: str) -> Any:
        raise _left_alone(path, f"{name} is not JSON")

    try:
        settings = json.loads(
            raw.decode("utf-8-sig"),
            object_pairs_hook=once,
            parse_float=number,
            parse_constant=constant,
        )
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        reason = "it is not plain JSON; comments in it would be lost"
        raise _left_alone(path, reason) from None
    if not isinstance(settings, dict):
        raise _left_alone(path, "it does not hold an object")
    return settings


def _left_alone(path: Path, reason: str) -> InvalidArgument:
    return InvalidArgument(
        f"{path} was left alone: {reason}", field="host", hint="add the printed entry by hand"
    )


def _indent_of(text: str) -> str | int:
    """The white space by which the file indents."""
    found = _INDENT.search(text)
    return found[1] if found else 2


def _back_up(path: Path) -> Path:
    """A copy beside the file, under a name that was free."""
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
    for number in range(1000):
        copy = path.with_name(f"{path.name}.memdb-{stamp}{f'-{number}' if number else ''}")
        try:
            with open(copy, "xb"):
                shutil.copy2(path, copy)
        except FileExistsError:
            continue
        return copy
    raise Conflict(f"too many copies of {path.name} lie beside it", hint="remove some")


def _replace(path: Path, before: bytes, after: bytes) -> None:
    """Write the file whole, unless it is not any more what was read."""
    temporary = path.with_name(f".{path.name}.memdb-{os.getpid()}")
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(after)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        if _read(path) != before:
            raise Conflict(f"{path} changed meanwhile", hint="run the command again")
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
