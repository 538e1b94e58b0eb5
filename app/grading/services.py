"""The services that graders call on, built from the settings; for API and workers alike."""

from __future__ import annotations

from functools import lru_cache

from graders.services import NOTHING, Services


@lru_cache
def grader_services() -> Services:
    """The services of this process."""
    return NOTHING
