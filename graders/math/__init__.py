"""Grades `math`: finds the answer in a text and holds it against a reference by its value."""
