"""Sampling on a GPU: kept graphs that decode and draw, and ends that are read one step late."""
