"""Regrades, carried out: stored completions are read, graded, and two graders compared."""
