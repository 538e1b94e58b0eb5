"""Builds the services that graders call on from the settings, for API and workers alike.

What talks to the network is one for each process, with its connections, limits and caches; what a tenant's
graders are given knows the tenant, whose keys and cached replies are its own.
"""

from __future__ import annotations

from functools import lru_cache

from app.grading.cache import ReplyCache
from app.grading.embeddings import Embeddings, Vector
from app.grading.endpoints import Endpoints
from app.grading.judges import Judges, TenantJudge, read_key
from app.grading.openai_calls import OpenAIServer
from app.grading.paces import Pace
from app.outbound import rules_of
from app.sandbox import local_sandbox, sandbox_settings
from app.settings import get_settings
from graders.services import Services


@lru_cache(maxsize=1024)
def grader_services(tenant: str = "", *, remembers: bool = True) -> Services:
    """Returns the services of this process for the graders of a project, or for no project's.

    Without `remembers` judges are asked anew, whatever they have replied before.
    """
    why = {"embedder": "no embedding model is set (the operator sets CHERRY_EMBEDDINGS); use another metric."}
    return Services(
        sandbox=local_sandbox(sandbox_settings(get_settings())),
        judge=TenantJudge(judges(), tenant, remembers=remembers),
        endpoint=_endpoints(),
        embedder=_embedder(tenant),
        why=why,
    )


def forget_services() -> None:
    """Has them built anew from the settings as they are now."""
    for cached in (grader_services, judges, _endpoints, _embedding_server, _vectors):
        cached.cache_clear()


@lru_cache
def judges() -> Judges:
    """Returns the judges of this process, who answer in eval runs too."""
    return Judges(get_settings())


@lru_cache
def _endpoints() -> Endpoints:
    settings = get_settings()
    return Endpoints(rules_of(settings), settings.endpoint_concurrency)


def _embedder(tenant: str) -> Embeddings | None:
    entry, server = get_settings().embeddings, _embedding_server()
    return Embeddings(entry, server, _vectors(), tenant) if entry and server else None


@lru_cache
def _vectors() -> ReplyCache[Vector]:
    return ReplyCache(get_settings().judge_cache_bytes)


@lru_cache
def _embedding_server() -> OpenAIServer | None:
    settings = get_settings()
    entry = settings.embeddings
    if entry is None:
        return None
    return OpenAIServer(
        entry.base_url,
        read_key(settings.judge_keys[entry.key]) if entry.key else "",
        where=f"The embedding model '{entry.model}'",
        concurrency=entry.concurrency,
        timeout=entry.timeout,
        retries=entry.retries,
        pace=Pace("embeddings", entry.calls_per_minute) if entry.calls_per_minute else None,
    )
