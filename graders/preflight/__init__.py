"""Tries a grader on right, empty and hostile answers before it trains anything."""
