"""Builds the sandbox of this process from the settings."""

from __future__ import annotations

import atexit
from functools import lru_cache

from app.settings import Settings
from graders.sandbox import LocalSandbox, SandboxSettings
from graders.services import Limits


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


@lru_cache
def local_sandbox(settings: SandboxSettings) -> LocalSandbox:
    """Returns the one sandbox of these settings. Nothing is started before a grader needs it."""
    sandbox = LocalSandbox(settings)
    atexit.register(sandbox.close)
    return sandbox


def sandbox_level(settings: SandboxSettings) -> str:
    """Returns the level that holds in this process, without finding it out: only graders that run code do
    that."""
    found = local_sandbox(settings).last_assessment
    return "not used yet" if found is None else found.level
