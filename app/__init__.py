"""The API: HTTP, database, queue. Never loads torch."""
