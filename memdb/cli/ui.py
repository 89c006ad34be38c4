"""``memdb ui``: open the owner's page, on the server that runs or on one that this starts.

The address has a code that is good once, for a minute, since whoever has it is the owner for as
long as the page is open. It comes from the server, which gives it for the owner's token.
"""

from __future__ import annotations

import json
from typing import Any

from memdb.cli import running
from memdb.cli.calls import Call
from memdb.cli.serving import hosted
from memdb.cli.spec import Command, Option

_WAIT_S = 10.0


def ui(call: Call) -> None:
    """Open the page; where no server runs, serve until interrupted."""
    said = running.found(call.path)
    made = None if said is None else _code_of(said)
    if made is not None:
        _show(call, made["url"], made["expires_s"])
        return
    _serve(call)


def _code_of(said: dict[str, Any]) -> dict[str, Any] | None:
    """The address with a code, from the server that is said to run; None where none answers."""
    import ssl
    import urllib.request

    request = urllib.request.Request(
        said["url"] + "/v1/ui/code",
        method="POST",
        headers={"Authorization": f"Bearer {said['token']}"},
    )
    trusted = None
    if said.get("certificate"):
        trusted = ssl.create_default_context(cafile=said["certificate"])
    # No proxy: the server is on this device, and the token is for nobody else.
    handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted)]
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=_WAIT_S) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found
    except (OSError, ValueError):  # urllib's errors are OSErrors: it stopped, or is another's
        return None


def _serve(call: Call) -> None:
    options = {} if call.args.port is None else {"port": call.args.port}
    host = hosted(call, "ui", **options)
    from memdb.server.sessions import CODE_S  # of the server's extra, which is there

    host.run(lambda: _show(call, f"{host.url}/open?code={host.sessions.codes.issue()}", CODE_S,
                           serving=True))  # fmt: skip


def _show(call: Call, url: str, expires_s: float, *, serving: bool = False) -> None:
    import webbrowser

    out = call.out
    opened = not call.args.no_browser and webbrowser.open(url)
    if out.as_json:
        out.json({"url": url, "expires_s": expires_s, "opened": opened, "serving": serving})
    else:
        out.line(out.style(url, "bold"))
        how = "the page is opened in your browser" if opened else "open this in your browser"
        out.note(f"{how}; the address is good once, for {expires_s:.0f} s")
        if serving:
            out.note("it is served from here: Ctrl+C stops it. memdb serve keeps it for agents")
    out.stream.flush()


COMMANDS = (
    Command(
        "ui",
        "open the page on which you see, search, limit and erase what is remembered",
        ui,
        None,
        (
            Option("no_browser", "print the address and open nothing", kind="flag", own=True),
            Option("port", "where no server runs: the port of the one that is started"
                   " (default: 8377; 0: any that is free)", kind="integer", own=True),
        ),
        ("ui", "ui --no-browser"),
        details=" The address has a code in it that is good once, for a minute.",
    ),
)  # fmt: skip
