"""Makes the HTTP service: routers, error handlers, lifespan."""

from __future__ import annotations

import gc

gc.disable()  # what is loaded here stays: to look through it again and again is a fifth of the loading time

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import to_thread
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from app.auth import KnownKeys
from app.cards.keys import ensure as ensure_card_key
from app.cards.router import router as cards
from app.chat.router import further_refusals as refusals_of_chat
from app.chat.router import router as chat
from app.checkpoints.router import by_name as checkpoints_by_name
from app.checkpoints.router import router as checkpoints
from app.completions.router import further_refusals as refusals_of_completion
from app.completions.router import router as completions
from app.conformance.router import check_disposable, install_conformance
from app.dashboard.assets import static as dashboard_files
from app.dashboard.router import router as dashboard
from app.dashboard.shown import error_page
from app.datasets.router import router as datasets
from app.db import REQUEST_THREADS, limit_statements
from app.erasures.router import of_organization as erasures_of_organization
from app.erasures.router import router as erasures
from app.evals.router import router as evals
from app.events.feed import Feed
from app.events.router import router as events
from app.feedback.router import router as feedback
from app.files.receive import keep_swept
from app.files.router import router as files
from app.grading.router import refusals_of_grader
from app.grading.router import router as grading
from app.http import health
from app.http.azure import AzurePaths
from app.http.edge import Edge
from app.http.error_handler import BodyCheck, install_error_handlers
from app.http.idempotency import Idempotency
from app.http.joint_reads import JointReads
from app.http.openapi import install_openapi
from app.http.rate_limit import RateLimiter
from app.jobs.router import further_refusals, read_jobs
from app.jobs.router import router as jobs
from app.models.router import router as models
from app.organization.router import router as organization
from app.permissions.router import router as permissions
from app.preflights.router import router as preflights
from app.regrades.router import router as regrades
from app.responses.background import Background
from app.responses.router import further_refusals as refusals_of_response
from app.responses.router import router as responses
from app.rollouts.router import router as rollouts
from app.settings import Settings, get_settings
from app.tools.router import router as environments
from app.uploads.router import router as uploads
from app.webhooks.router import router as webhooks

gc.enable()


BODY_CHECKS: dict[str, BodyCheck] = {
    "/v1/fine_tuning/jobs": further_refusals,
    "/v1/fine_tuning/jobs/preflight": further_refusals,
    "/v1/chat/completions": refusals_of_chat,
    "/v1/completions": refusals_of_completion,
    "/v1/responses": refusals_of_response,
    "/v1/responses/input_tokens": refusals_of_response,
    "/v1/fine_tuning/alpha/graders/run": refusals_of_grader,
    "/v1/fine_tuning/alpha/graders/validate": refusals_of_grader,
}
"""By path: what is looked at in a body besides its form, so that all refusals come together."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Returns the HTTP service."""
    settings = settings or get_settings()
    app = FastAPI(
        title="Cherry",
        description="Reinforcement fine-tuning behind OpenAI's API. Operations marked x-cherry are our own.",
        version="0.1.0",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    app.state.settings = settings
    app.state.feed = Feed()
    app.state.job_reads = JointReads(read_jobs)
    app.state.sign_ins = RateLimiter()
    app.state.background = Background()
    app.state.body_checks = BODY_CHECKS
    app.state.error_page = error_page
    install_error_handlers(app)
    install_openapi(app)
    for router in (  # tried in this order: what is polled comes first
        jobs,
        events,
        checkpoints,
        checkpoints_by_name,
        cards,
        rollouts,
        preflights,
        regrades,
        files,
        uploads,
        models,
        grading,
        environments,
        webhooks,
        permissions,
        organization,
        chat,
        completions,
        responses,
        evals,
        feedback,
        datasets,
        erasures,
        erasures_of_organization,
        dashboard,
        health.router,
    ):
        app.include_router(router)
    app.mount("/dashboard/static", dashboard_files)
    app.add_middleware(Idempotency)
    keys = KnownKeys(settings.key_cache.total_seconds())
    app.add_middleware(
        Edge,
        max_json_bytes=settings.max_json_bytes,
        most_of_address=settings.max_connections_per_address,
        keys=keys,
        error_page=error_page,
    )
    app.add_middleware(AzurePaths)
    if settings.conformance:
        install_conformance(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    to_thread.current_default_thread_limiter().total_tokens = REQUEST_THREADS
    limit_statements(app.state.settings.database_statement_limit)
    if app.state.settings.conformance:
        await run_in_threadpool(check_disposable)
    await run_in_threadpool(ensure_card_key, app.state.settings)
    sweeping = asyncio.create_task(keep_swept(app.state.settings.data_dir / "uploads"), name="spool")
    yield
    sweeping.cancel()
    await app.state.background.close()
