"""Forgetting that is asked for: what a memory is worth, policies, plans, a byte budget that holds.

``value`` has the formulas.
"""
