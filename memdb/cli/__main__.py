"""``python -m memdb.cli``: the command line where the ``memdb`` script is not on PATH."""

from __future__ import annotations

import sys

from memdb.cli import main

sys.exit(main())
