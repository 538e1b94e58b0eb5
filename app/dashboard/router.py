"""Joins the rooms of the dashboard, and is its door: a key signs in, and its project's rows are all that is
shown."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from app.dashboard import sign_in
from app.dashboard.checkpoints.pages import router as checkpoints
from app.dashboard.compare.pages import router as compare
from app.dashboard.create.pages import router as create
from app.dashboard.create.playground import router as graders
from app.dashboard.home.pages import router as home
from app.dashboard.job.pages import router as job
from app.dashboard.library.pages import router as library
from app.dashboard.samples.pages import router as samples
from app.dashboard.shown import FROM_HERE, REFERRER, templates, to_login
from app.db import unit_of_work

router = APIRouter(include_in_schema=False)
for room in (home, create, graders, job, samples, checkpoints, compare, library):
    router.include_router(room, prefix=sign_in.PATH)


@router.get("/dashboard/login")
def login_page(request: Request) -> Response:
    return door(request)


@router.post("/dashboard/login", dependencies=FROM_HERE)
def login(request: Request, key: Annotated[str, Form(max_length=512)]) -> Response:
    """Opens a session for a key. The session before, if the browser has one, is over."""
    grant = sign_in.attempt(request)
    if not grant.is_granted:
        return door(request, f"Too many wrong keys. Try again in {math.ceil(grant.wait)} s.", 429, grant.wait)
    with unit_of_work() as db:
        token = sign_in.begin(db, key.strip())
        if token is None:
            return door(request, "That key is not known here, or it was revoked.", 401)
        sign_in.end(request, db)
    sign_in.succeeded(request)
    response = RedirectResponse("/dashboard", status_code=303)
    sign_in.set_cookie(request, response, token)
    return response


@router.post("/dashboard/logout", dependencies=FROM_HERE)
def logout(request: Request) -> Response:
    with unit_of_work() as db:
        sign_in.end(request, db)
    response = to_login()
    response.delete_cookie(sign_in.COOKIE, path=sign_in.PATH)
    return response


def door(request: Request, problem: str = "", status: int = 200, retry_after: float = 0) -> Response:
    """Returns the page to sign in at, with what was wrong with the last attempt."""
    headers = REFERRER | ({"retry-after": str(math.ceil(retry_after))} if retry_after else {})
    values = {"problem": problem}
    return templates.TemplateResponse(request, "login.html", values, status_code=status, headers=headers)
