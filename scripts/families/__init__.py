"""Trains tiny models of every family by every method, and writes what came of it into docs/models.md."""
