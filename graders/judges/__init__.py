"""Holds graders that ask somebody else: a model as judge, or the user's own server."""
