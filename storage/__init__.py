"""Bytes and durability: one LMDB environment, the only commit point of a database.

This package takes records, hashes, bitmaps and bytes, and keeps them through crashes, power
loss and other processes. It must not know what a vector means, how text is embedded, or how a
query is ranked; it imports ``memdb.errors``, ``memdb.types`` and ``memdb.settings`` and nothing
else of memdb.
"""
