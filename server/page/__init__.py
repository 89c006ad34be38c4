"""The web page for the person whose memory it is: a blueprint, its templates and its two files.

Rendered on the server from the public verbs of ``memdb``; it works without JavaScript and asks no
other host for anything. ``blueprint`` is what a host registers; see server/README.md, "The page".
"""

from __future__ import annotations

from memdb.server.page import views
from memdb.server.page.blueprint import page as blueprint

__all__ = ["blueprint", "views"]
