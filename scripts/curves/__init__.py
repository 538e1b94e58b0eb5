"""The pictures of docs/reading-curves.md: runs of the built-in model, metrics, and drawings of them."""
