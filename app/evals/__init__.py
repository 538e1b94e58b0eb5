"""Evals: what answers are judged by, and runs of models over data, judged by it."""
