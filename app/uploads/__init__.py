"""Large files in parts: created, filled in any order, completed into a file."""
