"""Grades `fields`: takes a structured answer apart and scores each field."""
