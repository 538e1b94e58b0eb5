"""Organisations, projects and their API keys."""
