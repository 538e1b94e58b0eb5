"""Feedback on stored chat completions: a reward, a correction, or the true answer."""
