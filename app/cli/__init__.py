"""The `cherry` command."""
