"""Judges of known behaviour, as servers in processes of their own: exact ones, and ones with a fault each."""

from tests.judging.process import running_judge, settings_of

__all__ = ["running_judge", "settings_of"]
