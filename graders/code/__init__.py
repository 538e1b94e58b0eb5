"""Holds graders that run code: the user's own (`python`) and the completion's (`code_tests`)."""
