"""Who may know what: grants, tokens, principals, and the audit of what they did.

``Grant`` says what somebody may do and see; ``Principal`` is somebody with a grant; a token is a
secret by which a principal is known. ``Database.acting`` gives a handle that acts as one: what its
grant does not allow reaches no ranking, count, score or error, and every call leaves a row in the
audit. How a grant limits what is read is in ``view``; what is written, in ``handle``; ``calls``,
``acting`` and ``faces`` have the verbs, ``auditing`` the rows, ``control`` keeps them together.

This package does not know HTTP, nor any other way by which a call comes in.
"""
