"""Joins the pages of the library."""

from __future__ import annotations

from fastapi import APIRouter

from app.dashboard.library.evals import router as evals
from app.dashboard.library.files import router as files
from app.dashboard.library.keys import router as keys
from app.dashboard.library.models import router as models
from app.dashboard.library.service_settings import router as settings
from app.dashboard.library.webhooks import router as webhooks

router = APIRouter()
for pages in (files, models, keys, webhooks, evals, settings):
    router.include_router(pages)
