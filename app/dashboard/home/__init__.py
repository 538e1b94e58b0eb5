"""The first page: what runs, what waits, what has ended."""
