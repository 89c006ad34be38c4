"""``python -m bench ann``: memdb's index beside the best installable peers, on the same vectors.

Data, configuration and result are apart: ``data`` and ``truth`` say what is asked and what is
right, ``engines`` who is asked with which parameters, ``results`` what was found. Every engine runs
in a child process of its own (``children``), peers in environments of their own (``peers``).
"""

from bench.ann.command import main

__all__ = ["main"]
