"""``python -m bench.crash.drive SUBJECT ROOT SEED COUNT``: the process that is recorded."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.crash.command import drive

if __name__ == "__main__":
    subject, root, seed, count = sys.argv[1:]
    drive(subject, Path(root), int(seed), int(count))
