"""Measurements of the training engine: beside stock TRL, as sizes grow, and over a long run."""
