"""Graders that compare an answer with a reference as text."""
