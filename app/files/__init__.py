"""Uploaded data and result files."""
