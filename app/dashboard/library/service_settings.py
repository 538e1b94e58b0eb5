"""Serves the settings of the service, to read."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app.dashboard import sign_in
from app.dashboard.library.described import described
from app.dashboard.shown import page, to_login
from app.db import unit_of_work
from app.settings import get_settings

router = APIRouter()


@router.get("/settings")
def settings_page(request: Request) -> Response:
    """Shows every setting, what it means, and what may be shown of its value."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        return page(request, project, "library/settings.html", settings=described(get_settings()))
