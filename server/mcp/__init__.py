"""memdb over the Model Context Protocol: ten tools, by standard input and output or over HTTP.

``tools`` says what an agent may do, ``frame`` how memories are shown as data, ``service`` puts both
behind the official SDK's server, ``stdio`` and ``app`` are its two transports, ``install`` writes
the entry of a host application. None of it decides what a caller may see: that is the grant of
whoever calls.
"""
