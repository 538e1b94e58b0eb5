"""Asks models of this service as judges, through its own sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx2 as httpx

from app.db import unit_of_work
from app.errors import NotFound
from app.models import service as models
from app.models.served import served_name
from app.settings import Settings
from app.table_settings import JudgeEntry
from graders.types import GraderInvalid

CONCURRENCY = 64
TIMEOUT_SECONDS = 600.0
"""Seconds that are allowed: the sampler may have a model to load, and work of others before it."""


ASKING_SECONDS = 5.0
"""How long a server may take to say what it is."""


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
            model = models.get(db, project_id, name)
    except NotFound:
        return None
    url = settings.sampler_url.rstrip("/")
    listed = _listed_by_vllm(url, settings.sampler_token.get_secret_value())
    if listed is None:
        return _entry(f"{url}/projects/{quote(project_id, safe='')}/v1", None)
    served = served_name(listed, model)
    if served is None:
        message = (
            f"The model '{name}' cannot be a judge here: a vLLM server serves the models, and judges with"
            " the base model that it was started with."
        )
        raise GraderInvalid(message, param="model", code="unsupported_grader")
    return _entry(f"{url}/v1", served)


def _entry(base_url: str, model: str | None) -> OwnModel:
    return OwnModel(
        base_url=base_url,
        model=model,
        reasoning=False,
        reply="json_schema",
        concurrency=CONCURRENCY,
        timeout=TIMEOUT_SECONDS,
        retries=2,
    )


def _listed_by_vllm(url: str, token: str) -> Sequence[Mapping[str, Any]] | None:
    """Returns the models that a vLLM server lists; None where the server is a sampler of ours, or away."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=ASKING_SECONDS) as client:
            if client.get("/healthz").is_success or not client.get("/version").is_success:
                return None
            listed: Sequence[Mapping[str, Any]] = client.get("/v1/models").raise_for_status().json()["data"]
            return listed
    except httpx.HTTPError:  # to ask it will tell
        return None
