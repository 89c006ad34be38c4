"""The OpenAPI 3.1 document: made from the routes and the Structs that validate requests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from memdb.server import problems, schemas
from memdb.server.routing import JSON, MOST_NAME_CHARS, Route

# What any route may answer beside its success; ``Problem`` is the shape of all of them.
_PROBLEMS: Final = {
    400: "the request is malformed, or an argument is out of its range",
    401: "no token, or one that is not valid",
    403: "not allowed, or from another site",
    404: "there is none",
    405: "the route has no such method",
    408: "the request came too slowly",
    409: "it contradicts what is stored",
    413: "it is too large",
    415: "it is not JSON",
    421: "the Host header names another server",
    422: "the Idempotency-Key came with another request",
    423: "another process holds what the call needs",
    429: "too many requests a minute",
    431: "the headers are too long",
    500: "a file is damaged, or the server failed",
    501: "an optional extra is not installed",
    503: "too much at once, too slow, or no embedding model",
    507: "no room",
}


def document(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """The document as plain values."""
    routes = tuple(routes)
    shapes: list[Any] = [schemas.Problem]
    for route in routes:
        shapes += [one for one in (route.answer, route.body, route.query) if one is not None]
    described, components = msgspec.json.schema_components(
        shapes, ref_template="#/components/schemas/{name}"
    )
    by_shape = {_key(shape): schema for shape, schema in zip(shapes, described, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(
            route, by_shape, components
        )
    queries = {route.query.__name__ for route in routes if route.query is not None}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "memdb",
            "version": version,
            "description": "The memory of a personal agent, on one device.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": {name: one for name, one in components.items() if name not in queries},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _key(shape: Any) -> str:
    return repr(shape)


def _operation(
    route: Route, by_shape: dict[str, Any], components: dict[str, Any]
) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, "maxLength": MOST_NAME_CHARS},
        }
        for name in route.parameters
    ]
    if route.query is not None:
        parameters += _query_parameters(components[route.query.__name__])
    problem = {"content": {problems.CONTENT_TYPE: {"schema": by_shape[_key(schemas.Problem)]}}}
    answers: dict[str, Any] = {
        "200": {
            "description": route.summary,
            "content": {route.content_type: {"schema": by_shape[_key(route.answer)]}},
        }
    }
    answers |= {str(status): {"description": text, **problem} for status, text in _PROBLEMS.items()}
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": route.run.__doc__ or route.summary,
        "tags": [route.tag],
        "parameters": parameters,
        "responses": answers,
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": by_shape[_key(route.body)]}},
        }
        if route.method == "POST" and not route.secret:
            parameters.append(
                {
                    "name": "Idempotency-Key",
                    "in": "header",
                    "required": False,
                    "description": "what is sent twice under one key is done once",
                    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
                }
            )
    if route.open:
        operation["security"] = []
    return operation


def _query_parameters(shape: dict[str, Any]) -> list[dict[str, Any]]:
    """The fields of a Struct as parameters; what may be null may be left out."""
    required = shape.get("required", ())
    found = []
    for name, schema in shape["properties"].items():
        options = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
        plain = options[0] if len(options) == 1 else schema
        if plain is not schema and "default" in schema and schema["default"] is not None:
            plain = {**plain, "default": schema["default"]}
        found.append({"name": name, "in": "query", "required": name in required, "schema": plain})
    return found
