"""Benchmarks and long torture runs: ``python -m bench NAME``. Not shipped in the wheel.

Each module is one benchmark with its own ``main``; it uses memdb's public names (and the index
package), makes or reads its data, and prints a table with the command that reproduces it.
"""
