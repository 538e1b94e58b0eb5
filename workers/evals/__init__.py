"""Runs of evals, carried out: data is read, models answer, graders judge."""
