"""``python -m memdb``: the command line."""

from __future__ import annotations

import sys

from memdb.cli import main

sys.exit(main())
