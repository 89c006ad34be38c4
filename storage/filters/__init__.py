"""Filters and columns: which rows have which values, kept in the tables of one environment.

``FilterIndex`` is the way in. Below it, one noun a file: ``fields`` (what may be filtered),
``terms`` (memories as what they are filed under), ``bitmaps`` (sets of rows), ``ordered`` (numbers
and times), ``strings`` (strings in order), ``paths`` (numbers of metadata keys), ``fresh`` (rows
not filed yet), ``merged`` (filed and fresh as one); ``sorted_blocks`` and ``string_blocks`` enter
many at once, ``text_ranges`` and ``text_runs`` read many strings at once. It must not know what an
operator means or how conditions combine.
"""

from __future__ import annotations

from memdb.storage.filters.fields import FIELDS, METADATA, Field, JsonScalar, field_values
from memdb.storage.filters.index import FilterIndex

__all__ = ["FIELDS", "METADATA", "Field", "FilterIndex", "JsonScalar", "field_values"]
