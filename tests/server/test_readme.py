"""The server's documentation: its table of routes is the code's, its curl examples work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from memdb.server.routes import ROUTES
from tests.server.running import serving
from tests.source_tree import ROOT

README = ROOT / "server" / "README.md"
TABLE = re.compile(r"(<!-- routes -->\n)(.*?)(<!-- /routes -->)", re.DOTALL)
FENCE = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def table() -> str:
    rows = ["| route | what it does |", "| --- | --- |"]
    rows += [f"| `{route.method} {route.path}` | {route.summary} |" for route in ROUTES]
    return "\n".join(rows) + "\n"


def test_the_table_of_routes_is_the_codes() -> None:
    text = README.read_text("utf-8")
    fresh = TABLE.sub(lambda found: found[1] + table() + found[3], text)
    if os.environ.get("MEMDB_WRITE_DOCS"):
        README.write_text(fresh, "utf-8", newline="\n")
    else:
        assert text == fresh, "run the test with MEMDB_WRITE_DOCS=1 to write the table anew"


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize("name", ["README.md", "server/README.md"])
def test_the_curl_examples_work(name: str, tmp_path: Path) -> None:
    blocks = [one for one in FENCE.findall((ROOT / name).read_text("utf-8")) if "curl" in one]
    assert blocks
    with serving(tmp_path / "db") as served:
        for block in blocks:
            script = block.replace("http://127.0.0.1:8377", served.url)
            script = script.replace("~/.memdb", str(tmp_path / "db"))
            done = subprocess.run(
                ["sh", "-eu", "-c", script.replace("curl -s", "curl -sf")],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert "peanuts" in done.stdout
