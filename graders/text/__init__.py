"""Holds graders that compare an answer with a reference as text."""
