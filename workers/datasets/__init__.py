"""Makes data sets of stored chat completions: rows by their format, redacted, without copies and leaks."""
