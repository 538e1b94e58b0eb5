"""Rules about this repository that no ready-made linter has."""
