"""Measures how far a grader can be trusted: against people, against itself, and against tricks."""
