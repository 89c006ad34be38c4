"""Export: everything, or what is chosen, as one file to keep or to take elsewhere."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from flask import render_template, request
from werkzeug.wrappers import Response

from memdb import InvalidArgument
from memdb.server.page import door
from memdb.server.page.blueprint import page, zone
from memdb.server.page.choosing import Chosen
from memdb.server.page.views.search import choices

FORMATS: Final = {"jsonl": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}
_PIECE_BYTES: Final = 1 << 16


@page.get("/export")
def export() -> str:
    """The form, with how many memories it would write."""
    acting = door.acting()
    chosen = Chosen.of(request.args)
    return render_template(
        "export.html",
        chosen=chosen,
        number=acting.count(chosen.where_with_times()),
        series=acting.stats()["series"]["samples"],
        choices=choices(acting),
    )


@page.post("/export/file")
def export_file() -> Response:
    """The file, as a download. It is gone from this side when it is sent."""
    from memdb.server.page import forms

    format = forms.text("format") or "jsonl"
    if format not in FORMATS:
        raise InvalidArgument("format is jsonl or parquet", field="format")
    where = Chosen.of(forms.fields()).where_with_times()
    folder = tempfile.TemporaryDirectory(prefix="memdb-export-")
    path = Path(folder.name) / f"export.{format}"
    try:
        door.acting().export(path, format=format, where=where)
    except BaseException:
        folder.cleanup()
        raise
    name = f"memories-{datetime.now(UTC).astimezone(zone()):%Y-%m-%d}.{format}"
    return Response(
        _pieces(path, folder),
        mimetype=FORMATS[format],
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "Content-Length": str(path.stat().st_size),
        },
    )


def _pieces(path: Path, folder: tempfile.TemporaryDirectory[str]) -> Iterator[bytes]:
    with folder, open(path, "rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
