"""Tries a grader on right, empty and hostile completions before it trains anything."""
