"""Grades `instructions`: checks whether a completion follows verifiable instructions (IFEval)."""
