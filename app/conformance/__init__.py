"""The official client's own generated tests against the real handlers and a real, disposable database.

Those tests know fixed ids and send some things that no server could take at its word. `POST
/conformance/reset` seeds the ids before each test, and `rewrites.py` puts what can be taken in place of the
rest. All of it exists only with `CHERRY_CONFORMANCE=1`, on a database that was marked as disposable.
"""
