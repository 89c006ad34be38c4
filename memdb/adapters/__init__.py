"""memdb behind the interfaces of other frameworks: LangGraph, LangChain, LlamaIndex.

One module a framework; each imports it on its own and says which extra brings it where it is
missing. They use the public names of memdb alone, and share what is in ``handles``.
"""
