"""Serves evals, their runs, and what a run has come to."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app.dashboard import sign_in
from app.dashboard.shown import page, to_login
from app.db import unit_of_work
from app.evals import run_service as eval_runs
from app.evals import service as evals
from app.evals.models import ACTIVE, ItemStatus
from app.pagination import Cursor

ITEMS = 400
PAGE = 50

router = APIRouter()


@router.get("/evals")
def eval_list(request: Request, after: Cursor = None) -> Response:
    """Shows evals, newest first."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        shown = evals.list_evals(db, project.id, after=after, limit=PAGE, order="desc", order_by="created_at")
        return page(request, project, "library/evals.html", evals=shown.rows, more=shown.has_more)


@router.get("/evals/{eval_id}")
def eval_page(request: Request, eval_id: str, after: Cursor = None) -> Response:
    """Shows the runs of an eval, newest first."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        found = evals.get(db, project.id, eval_id)
        runs = eval_runs.list_runs(
            db, project.id, eval_id, status=None, after=after, limit=PAGE, order="desc"
        )
        return page(request, project, "library/eval.html", eval=found, runs=runs.rows, more=runs.has_more)


@router.get("/evals/{eval_id}/runs/{run_id}")
def eval_run(
    request: Request, eval_id: str, run_id: str, status: ItemStatus | None = None, after: Cursor = None
) -> Response:
    """Shows a run of an eval: where the `report_url` of a run leads."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login()
        run, shown = eval_runs.list_items(
            db, project.id, eval_id, run_id, status=status, after=after, limit=ITEMS, order="asc"
        )
        return page(
            request,
            project,
            "library/eval_run.html",
            eval=evals.get(db, project.id, eval_id),
            run=run,
            items=shown.rows,
            more=shown.has_more,
            status=status,
            refresh=run.status in ACTIVE,
        )
