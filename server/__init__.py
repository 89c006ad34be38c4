"""The HTTP and MCP faces of memdb: identity, permission, audit and limits, nothing else.

Imports the public names of ``memdb`` only.
"""
