"""The server that ``bench serve`` measures: ``memdb serve``, or the same without the audit.

python -m bench.serve_host DATABASE [--no-audit]
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, cast

from memdb.server.starting import collecting_later


def main(arguments: list[str]) -> None:
    with collecting_later():
        import memdb
        from memdb.server.host import Host, ServeOptions

        db = memdb.open(Path(arguments[0]), embedder="none", source="bench")
        host = Host(db, ServeOptions(port=0))
    if "--no-audit" in arguments:
        # What the owner would be given, without anything that is told of it.
        host.identities.acting = lambda *_, **__: cast(Any, db)  # type: ignore[method-assign]

    def say() -> None:
        said = {"port": host.port, "token_file": str(host.token_file), "pid": os.getpid()}
        print(json.dumps(said), flush=True)

    host.run(say)


if __name__ == "__main__":
    main(sys.argv[1:])
