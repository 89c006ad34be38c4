"""Scripts that run inside an engine's own environment: one harness, and one adapter an engine.

They import the standard library, numpy and the engine; never each other nor the rest of bench,
because a peer's environment has neither.
"""
