"""Grades outside a training, and builds from the settings what graders call on."""
