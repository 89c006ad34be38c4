"""``python -m bench crash``: what is left of a run when the power fails. See ``command``."""

from __future__ import annotations

from bench.crash.command import main

__all__ = ["main"]
