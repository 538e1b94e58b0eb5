"""Regrades: completions that are stored already, graded by another grader, and both compared."""
