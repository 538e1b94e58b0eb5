"""Serves /v1/evals."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request

from app.db import unit_of_work
from app.evals import run_service, service
from app.evals.models import ItemStatus, Status
from app.evals.schemas import (
    EvalCreate,
    EvalDeleted,
    EvalList,
    EvalOut,
    EvalUpdate,
    OutputItemList,
    OutputItemOut,
    RunCreate,
    RunDeleted,
    RunList,
    RunOut,
)
from app.evals.service import Order, OrderBy
from app.http.transaction import CurrentCaller, Db, KeptRoute
from app.pagination import Cursor, Limit
from app.settings import get_settings

router = APIRouter(prefix="/v1/evals", tags=["evals"], route_class=KeptRoute)

EVAL = "/{eval_id}"
RUN = f"{EVAL}/runs/{{run_id}}"
ITEMS = f"{RUN}/output_items"


def known(eval_id: str, caller: CurrentCaller) -> None:
    """Refuses an eval that is not there. A dependency is asked before the body is looked at."""
    with unit_of_work() as db:
        service.get(db, caller.project_id, eval_id)


@router.post("", status_code=201)
def create_eval(request: EvalCreate, caller: CurrentCaller, db: Db) -> EvalOut:
    """Make an eval: the form of its data, and graders that answers must pass."""
    return EvalOut.of(service.create(db, caller.project_id, request))


@router.get("")
def list_evals(
    caller: CurrentCaller,
    db: Db,
    after: Cursor = None,
    limit: Limit = 20,
    order: Order = "asc",
    order_by: OrderBy = "created_at",
) -> EvalList:
    """Evals, those of fine-tuning jobs too, whose metadata names the job."""
    page = service.list_evals(db, caller.project_id, after=after, limit=limit, order=order, order_by=order_by)
    return EvalList.holding([EvalOut.of(row) for row in page.rows], page.has_more)


@router.get(EVAL)
def retrieve_eval(eval_id: str, caller: CurrentCaller, db: Db) -> EvalOut:
    """An eval."""
    return EvalOut.of(service.get(db, caller.project_id, eval_id))


@router.post(EVAL, dependencies=[Depends(known)])
def update_eval(eval_id: str, request: EvalUpdate, caller: CurrentCaller, db: Db) -> EvalOut:
    """Change the name or the metadata of an eval."""
    return EvalOut.of(service.change(db, caller.project_id, eval_id, request))


@router.delete(EVAL)
def delete_eval(eval_id: str, caller: CurrentCaller, db: Db) -> EvalDeleted:
    """Delete an eval with its runs. The fine-tuning job that made it stays as it is."""
    service.remove(db, caller.project_id, eval_id)
    return EvalDeleted(eval_id=eval_id)


@router.post(f"{EVAL}/runs", status_code=201, dependencies=[Depends(known)])
def create_run(eval_id: str, asked: RunCreate, request: Request, caller: CurrentCaller, db: Db) -> RunOut:
    """Have data judged: answers that it brings, or those of a model. A worker carries it out."""
    run = run_service.create(db, caller.project_id, eval_id, asked, get_settings())
    return RunOut.of(run, _base_url(request))


@router.get(f"{EVAL}/runs")
def list_runs(
    eval_id: str,
    request: Request,
    caller: CurrentCaller,
    db: Db,
    after: Cursor = None,
    limit: Limit = 20,
    order: Order = "asc",
    status: Status | None = None,
) -> RunList:
    """Runs of an eval."""
    page = run_service.list_runs(
        db, caller.project_id, eval_id, status=status, after=after, limit=limit, order=order
    )
    return RunList.holding([RunOut.of(run, _base_url(request)) for run in page.rows], page.has_more)


@router.get(RUN)
def retrieve_run(eval_id: str, run_id: str, request: Request, caller: CurrentCaller, db: Db) -> RunOut:
    """A run, with what it has come to so far."""
    return RunOut.of(run_service.get(db, caller.project_id, eval_id, run_id), _base_url(request))


@router.post(f"{RUN}/cancel")
@router.post(RUN)
def cancel_run(eval_id: str, run_id: str, request: Request, caller: CurrentCaller, db: Db) -> RunOut:
    """Cancel a run. What was judged so far stays. OpenAI's client calls `/cancel`, its document does not."""
    return RunOut.of(run_service.cancel(db, caller.project_id, eval_id, run_id), _base_url(request))


@router.delete(RUN)
def delete_run(eval_id: str, run_id: str, caller: CurrentCaller, db: Db) -> RunDeleted:
    """Delete a run with its output items."""
    run_service.remove(db, caller.project_id, eval_id, run_id)
    return RunDeleted(run_id=run_id)


@router.get(ITEMS)
def list_output_items(
    eval_id: str,
    run_id: str,
    caller: CurrentCaller,
    db: Db,
    after: Cursor = None,
    limit: Limit = 20,
    order: Order = "asc",
    status: ItemStatus | None = None,
) -> OutputItemList:
    """What each row of the data came to, in their order, as far as they were judged."""
    run, page = run_service.list_items(
        db, caller.project_id, eval_id, run_id, status=status, after=after, limit=limit, order=order
    )
    return OutputItemList.holding([OutputItemOut.of(one, run) for one in page.rows], page.has_more)


@router.get(f"{ITEMS}/{{output_item_id}}")
def retrieve_output_item(
    eval_id: str, run_id: str, output_item_id: str, caller: CurrentCaller, db: Db
) -> OutputItemOut:
    """One output item."""
    run, item = run_service.get_item(db, caller.project_id, eval_id, run_id, output_item_id)
    return OutputItemOut.of(item, run)


def _base_url(request: Request) -> str:
    return str(request.base_url).rstrip("/")
