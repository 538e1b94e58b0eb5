"""Graders outside a training: what they call on, built from the settings."""
