"""Asks models of this service as judges, through its own sampler."""

from __future__ import annotations

from urllib.parse import quote

from app.db import unit_of_work
from app.errors import NotFound
from app.judge_settings import JudgeEntry
from app.models import service as models
from app.settings import Settings

CONCURRENCY = 64
TIMEOUT_SECONDS = 600.0
"""Seconds that are allowed: the sampler may have a model to load, and work of others before it."""


class OwnModel(JudgeEntry):
    """Returns a base model, or one that the project has tuned."""


def own_names(settings: Settings, project_id: str) -> list[str]:
    """Returns the names of this service's models that may judge for a project; none without a sampler."""
    if not settings.sampler_url or not project_id:
        return []
    with unit_of_work() as db:
        return models.names(db, project_id)


def own_model(settings: Settings, project_id: str, name: str) -> OwnModel | None:
    """Returns the judge that a project's own model is, or None without such a model or a sampler."""
    if not settings.sampler_url or not project_id:
        return None
    try:
        with unit_of_work() as db:
            models.get(db, project_id, name)
    except NotFound:
        return None
    return OwnModel(
        base_url=f"{settings.sampler_url.rstrip('/')}/projects/{quote(project_id, safe='')}/v1",
        reasoning=False,
        reply="json_schema",
        concurrency=CONCURRENCY,
        timeout=TIMEOUT_SECONDS,
        retries=2,
    )
