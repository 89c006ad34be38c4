"""One process, one port: uvicorn outside, the gate, and behind it Flask and MCP.

Binds, writes ``server.json`` for the command line of the same user, serves until it is told to
stop, finishes what is in work, and closes the database. What is answered is decided elsewhere.

``server.json`` (0600) in the database's directory: ``url``, ``host``, ``port``, ``pid``,
``token_file``, ``version``, ``certificate`` (with TLS). It may outlive a server that was killed:
who reads it checks that somebody answers there.
"""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import json
import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Final, cast

import uvicorn

import memdb
from memdb import Database, InvalidArgument, LockHeld
from memdb.server.direct import Direct
from memdb.server.gate import App, Gate, GateOptions, Receive, Scope, Send, names_of
from memdb.server.idempotency import Replays
from memdb.server.identity import Identities, write_private
from memdb.server.later import Later
from memdb.server.limits import Limits
from memdb.server.metrics import Metrics
from memdb.server.protocols import protocol
from memdb.server.routes import ROUTES
from memdb.server.routing import Services
from memdb.server.sessions import Sessions
from memdb.server.starting import short_turns

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8377
FILE: Final = "server.json"
LOCK: Final = "server.lock"
MCP: Final = "memdb.server.mcp.app"
FLASK: Final = "memdb.server.app"
NEEDED_LATER: Final = ("flask", "a2wsgi", "prometheus_client")
UNASKED_S: Final = 3.0  # after the start: by then those who waited for the server have asked
# What a browser on this device calls it; "memdb.localhost" has cookies of its own.
LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]", "memdb.localhost")


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How to serve; what is not loopback needs ``expose`` and TLS."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    tls_cert: str | None = None
    tls_key: str | None = None
    expose: bool = False
    names: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)

    def checked(self) -> ServeOptions:
        """Itself; ``InvalidArgument`` where it would let others in unprotected."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InvalidArgument("--tls-cert and --tls-key go together", field="tls_key")
        if not is_loopback(self.host) and not (self.expose and self.tls_cert):
            raise InvalidArgument(
                "the host is not this device alone",
                field="host",
                hint="leave out --host; or give --expose with --tls-cert and --tls-key",
            )
        if not 0 <= self.port <= 65_535:
            raise InvalidArgument("port must lie between 0 and 65,535", field="port")
        return self


def is_loopback(host: str) -> bool:
    """Whether only this device reaches ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Host:
    """A server over an open database, which it closes when it stops."""

    def __init__(self, db: Database, options: ServeOptions | None = None) -> None:
        self._options = (options or ServeOptions()).checked()
        for name in NEEDED_LATER:
            if importlib.util.find_spec(name) is None:
                raise ImportError(f"the server needs {name}", name=name)
        self._db = db
        self.identities = Identities(db)
        self.sessions = Sessions(self.identities)
        self.metrics = Metrics()
        limits = self._options.limits
        roots = tuple(os.path.realpath(os.path.expanduser(one)) for one in self._options.roots)
        self._socket = _bind(self._options.host, self._options.port)
        self.port: int = self._socket.getsockname()[1]
        self.services = Services(db, self.identities, Replays(), self.sessions, roots, self.url)
        self._direct = Direct(ROUTES, self.services, limits.workers)
        self._server = uvicorn.Server(self._config(limits))

    @property
    def url(self) -> str:
        """Where it is reached."""
        scheme = "https" if self._options.tls_cert else "http"
        host = self._options.host
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def token_file(self) -> Path:
        """The file with the owner's token of this run."""
        return self._db.path / "server.token"

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until ``stop``, SIGTERM or SIGINT; then finish, close and return.

        ``ready`` is called when it can be found: a request that comes then is answered.
        """
        try:
            with self._sole(), _calm_signals(self.stop), short_turns():
                self._announce()
                ready()
                self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()
            self._direct.close()
            self._db.close()

    def stop(self) -> None:
        """Ask it to stop; safe from any thread and from a signal's handler."""
        self._server.should_exit = True

    # --- what it is made of -----------------------------------------------------------------

    def _config(self, limits: Limits) -> uvicorn.Config:
        options = self._options
        return uvicorn.Config(
            self._asgi(),
            http=protocol(limits),
            loop="auto",  # uvloop where it is installed
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            limit_concurrency=limits.connections,
            timeout_keep_alive=limits.idle_s,
            timeout_graceful_shutdown=limits.stop_s,
            h11_max_incomplete_event_size=limits.head_bytes,
            ssl_certfile=options.tls_cert,
            ssl_keyfile=options.tls_key,
            ssl_version=ssl.PROTOCOL_TLS_SERVER,
        )

    def _asgi(self) -> Gate:
        options = self._options
        flask_side = Later(self._flask_app, unasked_s=UNASKED_S)
        direct = self._direct
        mcp_side: Later | None = None
        if importlib.util.find_spec("mcp") is not None:
            mcp_side = Later(lambda: cast("App", import_module(MCP).asgi_app()))

        async def inner(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await _live(receive, send, [one for one in (flask_side, mcp_side) if one])
                return
            scope["state"]["services"] = self.services
            path = scope["path"]
            if mcp_side is not None and (path == "/mcp" or path.startswith("/mcp/")):
                scope["state"]["route"] = "mcp"
                await mcp_side(scope, receive, send)
                return
            route = direct.route_of(scope["method"], path)
            if route is not None:
                await direct(route, scope, send)
            else:
                await flask_side(scope, receive, send)

        names = LOOPBACK_NAMES if is_loopback(options.host) else (options.host,)
        hosts, origins = names_of(
            (*names, *options.names), self.port, secure=options.tls_cert is not None
        )
        special = {
            (route.method, route.path): (route.limit_s, route.body_bytes)
            for route in ROUTES
            if route.limit_s is not None or route.body_bytes is not None
        }
        gate = GateOptions(hosts, origins, options.limits, special)
        return Gate(inner, gate, self.identities, self.sessions, self.metrics)

    def _flask_app(self) -> App:
        """Flask behind ASGI, imported now."""
        from a2wsgi import WSGIMiddleware

        secure = self._options.tls_cert is not None
        app = import_module(FLASK).make_app(self.services, self.metrics, secure=secure)
        # mypy: a2wsgi and uvicorn each have ASGI types of their own.
        return cast("App", WSGIMiddleware(cast(Any, app), workers=8))

    # --- being found ------------------------------------------------------------------------

    def _announce(self) -> None:
        token_file = self.identities.issue_file()
        described = {
            "url": self.url,
            "host": self._options.host,
            "port": self.port,
            "pid": os.getpid(),
            "token_file": str(token_file),
            "version": memdb.__version__,
            "certificate": self._options.tls_cert,
        }
        write_private(self._db.path / FILE, json.dumps(described) + "\n")

    @contextlib.contextmanager
    def _sole(self) -> Iterator[None]:
        """One server a database: the kernel's lock, which dies with its process."""
        with open(self._db.path / LOCK, "a+", encoding="ascii", opener=_private) as lock:
            if not _locked(lock):
                lock.seek(0)
                pid = lock.read().strip()
                raise LockHeld(
                    "a server for this database is running",
                    pid=int(pid) if pid.isdigit() else 0,
                    host=socket.gethostname(),
                    hint="use that one, or stop it",
                )
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            try:
                yield
            finally:
                (self._db.path / FILE).unlink(missing_ok=True)
                self.identities.withdraw_file()


async def _live(receive: Receive, send: Send, parts: list[Later]) -> None:
    """The server's lifespan, which is that of its parts."""
    await receive()
    for part in parts:
        part.begin()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    for part in parts:
        await part.end()
    await send({"type": "lifespan.shutdown.complete"})


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named: only then asyncio sets TCP_NODELAY on what it accepts, and an answer
    # of two writes is not held back for 40 ms.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(1_024)
    except OSError:
        bound.close()
        raise InvalidArgument(
            "the port is taken, or the host is none of this device",
            field="port",
            hint="choose another one: memdb serve --port N",
        ) from None
    return bound


@contextlib.contextmanager
def _calm_signals(stop: Callable[[], None]) -> Iterator[None]:
    """uvicorn stops at a signal and then raises it again, which would end the process at once; one
    that comes before uvicorn listens to any stops it too."""

    def told(*_: object) -> None:
        stop()

    try:
        before = {s: signal.signal(s, told) for s in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: there are no signals here
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _locked(lock: IO[str]) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: server.json alone says that there is one
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
