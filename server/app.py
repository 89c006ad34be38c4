"""The Flask app: ``/v1`` from the table of routes, the metrics, the OpenAPI document, the page.

It runs behind the gate and trusts it: by the time a request is here, it has a principal, its body
is read and its path is canonical. ``flask.g`` has ``principal`` and ``acting`` for what is added
beside the table (the page, routes in the shape of other products).
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

import flask
import msgspec
from werkzeug.exceptions import HTTPException

import memdb
from memdb.server import metrics as metrics_of
from memdb.server import openapi, problems, sessions
from memdb.server.problems import Refused
from memdb.server.routes import ROUTES
from memdb.server.routing import (
    Reply,
    Route,
    Sent,
    Services,
    answer,
    decoded_path,
    of_problem,
)

PAGE = "memdb.server.page"
PAGE_PURPOSE = "the owner's page"
_IN_TABLE = frozenset(f"{route.method} {route.path}" for route in ROUTES)
log = logging.getLogger("memdb.server")


def make_app(
    services: Services, metrics: metrics_of.Metrics, *, secure: bool = False
) -> flask.Flask:
    """The app over one database; ``secure``: it is reached over TLS alone."""
    app = flask.Flask("memdb.server", static_folder=None)
    app.extensions["memdb"] = services
    app.extensions["memdb_exchange"] = _exchange(services, secure)
    app.extensions["memdb_sign_out"] = lambda response: _sign_out(services, response, secure)
    app.url_map.strict_slashes = False
    for route in ROUTES:
        app.add_url_rule(
            _flask_path(route),
            endpoint=f"{route.method} {route.path}",
            view_func=_view(route, services),
            methods=[route.method],
            provide_automatic_options=False,
        )
    document = msgspec.json.encode(openapi.document(ROUTES, memdb.__version__))
    _add(app, "/openapi.json", "openapi", lambda: Reply(200, document))
    _add(app, "/metrics", "metrics", lambda: _metrics(metrics))
    app.before_request(lambda: _before(services))
    app.register_error_handler(Exception, _failed)
    if importlib.util.find_spec(PAGE) is not None:
        app.register_blueprint(import_module(PAGE).blueprint)
    return app


def _add(app: flask.Flask, path: str, name: str, run: Callable[[], Reply]) -> None:
    def view() -> flask.Response:
        flask.g.state["route"] = name
        return _response(run())

    app.add_url_rule(path, endpoint=name, view_func=view, methods=["GET"],
                     provide_automatic_options=False)  # fmt: skip


def _metrics(metrics: metrics_of.Metrics) -> Reply:
    """They count everything, so they are the owner's."""
    if not flask.g.principal.owner:
        raise Refused(403, "permission_denied", "only the owner may do this",
                      "use the owner's token")  # fmt: skip
    return Reply(200, metrics.text(), metrics_of.CONTENT_TYPE)


def _before(services: Services) -> None:
    """What the gate found out, where handlers look for it."""
    state = flask.request.environ["asgi.scope"]["state"]
    principal, session = state["principal"], state["session"]
    flask.g.state, flask.g.principal, flask.g.session = state, principal, session
    flask.g.memdb, flask.g.acting, flask.g.csrf = services.db, None, ""
    endpoint = flask.request.endpoint or ""
    if principal is None or endpoint in _IN_TABLE:
        return
    state["route"] = "page" if session is not None else "other"
    if session is None:
        flask.g.acting = services.identities.acting(
            principal, purpose=state["purpose"], tool=endpoint
        )
        return
    flask.g.csrf = services.sessions.csrf_of(session)
    flask.g.acting = services.identities.acting(
        principal, purpose=PAGE_PURPOSE, tool=endpoint, transport="page"
    )


def _exchange(services: Services, secure: bool) -> Callable[[str], Any]:
    """What the page asks with a one-time code: None, or what puts the session's cookie."""

    def exchange(code: str) -> Callable[[flask.Response], None] | None:
        try:
            id = services.sessions.codes.exchange(code)
        except memdb.PermissionDenied:
            return None

        def sign_in(response: flask.Response) -> None:
            response.headers.add("Set-Cookie", sessions.cookie(id, secure=secure))

        return sign_in

    return exchange


def _sign_out(services: Services, response: flask.Response, secure: bool) -> None:
    """End the session of the request, and take its cookie away."""
    if flask.g.session is not None:
        services.sessions.end(flask.g.session)
    response.headers.add("Set-Cookie", sessions.cookie("", secure=secure))


def _flask_path(route: Route) -> str:
    return route.path.replace("{", "<").replace("}", ">")


def _view(route: Route, services: Services) -> Callable[..., flask.Response]:
    def view(**path: str) -> flask.Response:
        state = flask.g.state
        state["route"] = route.name
        sent = Sent(
            flask.g.principal,
            decoded_path(route, path),
            state["query"],
            state["body"],
            state["purpose"],
            state["idempotency_key"],
        )
        return _response(answer(route, services, sent))

    return view


def _response(reply: Reply) -> flask.Response:
    response = flask.Response(reply.body, reply.status, content_type=reply.content_type)
    for name, value in reply.headers:
        response.headers[name] = value
    return response


def _failed(error: Exception) -> Any:
    """Whatever goes wrong outside the table of routes, as a problem."""
    if isinstance(error, Refused):
        return _response(of_problem(problems.of_refusal(error), error.headers))
    if isinstance(error, memdb.MemdbError):
        sent = [*problems.strings_of((dict(flask.request.args), flask.request.view_args or {}))]
        return _response(of_problem(problems.of_error(error, sent)))
    if isinstance(error, HTTPException):
        if error.code is None or error.code < 400:
            return error
        status = error.code
        codes = {404: "no_such_route", 405: "method_not_allowed"}
        refused = Refused(status, codes.get(status, "http_error"),
                          problems.title_of(status).lower(), "see /openapi.json")  # fmt: skip
        allow = [(n, v) for n, v in error.get_headers() if n in ("Allow", "Retry-After")]
        return _response(of_problem(problems.of_refusal(refused), dict(allow)))
    log.error("a request failed", exc_info=error)
    return _response(of_problem(problems.of_refusal(problems.UNEXPECTED)))
