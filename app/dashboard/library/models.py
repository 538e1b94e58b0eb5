"""Serves the models that a project can name: bases, what they can do, and what was tuned from them."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from app.dashboard import sign_in
from app.dashboard.shown import FROM_HERE, page, to_login
from app.db import unit_of_work
from app.errors import ApiError
from app.models import service as models
from app.tenants.models import Project

router = APIRouter()


@router.get("/models")
def model_list(request: Request) -> Response:
    """Shows base models with their other names, then the project's own and those shared with it."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        return _shown(request, db, project)


def _shown(request: Request, db: Session, project: Project, problem: ApiError | None = None) -> Response:
    found = models.list_models(db, project.id)
    aliases: dict[str, list[str]] = defaultdict(list)
    for alias in models.list_aliases(db):
        aliases[alias.model].append(alias.name)
    return page(
        request,
        project,
        "library/models.html",
        bases=[model for model in found if model.project_id is None],
        own=[model for model in found if model.project_id == project.id and model.id is not None][::-1],
        shared=[model for model in found if model.project_id not in (None, project.id)],
        aliases=aliases,
        problem=problem,
        status_code=problem.status if problem else 200,
    )


@router.post("/models/delete", dependencies=FROM_HERE)
def delete_model(request: Request, name: Annotated[str, Form(max_length=512)]) -> Response:
    """Deletes a tuned model's name; its job and checkpoints stay. Says on the page why one stays."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
    try:
        with unit_of_work() as db:
            models.remove(db, project.id, name)
    except ApiError as problem:
        with unit_of_work() as db:
            return _shown(request, db, project, problem)
    return RedirectResponse("/dashboard/models", status_code=303)
