"""The OpenAPI document is true: schemathesis asks whatever it allows, and some of what it does not.

A bounded run; ``python -m bench serve --only fuzz`` asks for longer.
"""

from __future__ import annotations

import subprocess
import sys

from memdb.server import openapi
from memdb.server.routes import ROUTES
from tests.server.running import Served

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,response_headers_conformance,negative_data_rejection"
)


def test_every_route_is_in_the_document_once() -> None:
    paths = openapi.document(ROUTES, "1")["paths"]
    listed = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert listed == {(route.method, route.path) for route in ROUTES}
    assert len(ROUTES) == len(listed)
    names = [route.name for route in ROUTES]
    assert len(set(names)) == len(names)


def test_whatever_the_document_allows_is_answered_as_it_says(served: Served) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run",
         f"{served.url}/openapi.json", "-H", f"Authorization: Bearer {served.token}",
         "--checks", CHECKS, "--max-examples", "1", "--phases", "fuzzing",
         "--seed", "1", "--no-color", "--generation-database", "none"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
