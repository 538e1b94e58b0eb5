"""Graders that run code: the user's own (`python`) and the answer's (`code_tests`)."""
