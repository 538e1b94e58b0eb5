"""The services that graders call on, built from the settings; for API and workers alike."""

from __future__ import annotations

import atexit
from functools import lru_cache

from app.settings import Settings, get_settings
from graders.sandbox import LocalSandbox, SandboxSettings
from graders.services import Limits, Services


@lru_cache
def grader_services() -> Services:
    """The services of this process. Nothing is started before a grader needs it."""
    sandbox = LocalSandbox(sandbox_settings(get_settings()))
    atexit.register(sandbox.close)
    return Services(sandbox=sandbox)


def sandbox_settings(settings: Settings) -> SandboxSettings:
    return SandboxSettings(
        wanted=settings.sandbox,
        limits=Limits(
            wall_seconds=settings.sandbox_seconds,
            cpu_seconds=settings.sandbox_cpu_seconds,
            memory_bytes=settings.sandbox_memory_bytes,
            output_bytes=settings.sandbox_output_bytes,
        ),
        scratch_bytes=settings.sandbox_scratch_bytes,
        parallel=settings.sandbox_parallel,
        readable=tuple(map(str, settings.sandbox_readable)),
    )
