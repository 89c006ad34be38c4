"""Vectors: codes, scans and refinement. Arrays in, arrays out; it does not know records."""
