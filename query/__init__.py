"""Deciding: filters, planner, lexical and vector legs, fusion and ranking, over read snapshots."""
