"""Answers that people score: the sheet that goes out, and scored answers that come back."""
