"""/v1/fine_tuning/alpha/graders. No handler opens a transaction: a grader may take minutes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from app.auth import Caller
from app.errors import ApiError, Refusals
from app.grading import service as grading
from app.grading.schemas import GraderOut, GraderRun, GraderRunOut, GraderValidate
from app.http.transaction import CurrentCaller, KeptRoute
from app.settings import get_settings
from graders import Sample

router = APIRouter(prefix="/v1/fine_tuning/alpha/graders", tags=["graders"], route_class=KeptRoute)


@router.post("/validate")
def validate_grader(request: GraderValidate, caller: CurrentCaller) -> GraderOut:
    """Check a grader as a job would, and show it as it was understood."""
    return GraderOut(grader=grading.as_understood(request.grader, "grader", caller.project_id))


def refusals_of_grader(body: dict[str, Any], caller: Caller) -> list[ApiError]:
    """Returns what is wrong with the grader in a body whose form is wrong."""
    refusals = Refusals()
    if isinstance(body.get("grader"), dict):
        with refusals:
            grading.as_understood(body["grader"], "grader", caller.project_id)
    return refusals.all


@router.post("/run")
async def run_grader(request: GraderRun, caller: CurrentCaller) -> GraderRunOut:
    """Grade one answer. A grading that fails answers 200 too: reward 0, and flags in `metadata.errors`.

    Several answers get a grade each, under `results`.
    """
    settings = get_settings()
    spec, grades = await grading.run(
        caller,
        request.grader,
        [Sample(output_text=answer) for answer in request.answers],
        request.row(),
        seconds=settings.grader_run_limit.total_seconds(),
        per_key=settings.grader_runs_per_key,
    )
    if isinstance(request.model_sample, list):
        return GraderRunOut.of_several(spec, grades)
    return GraderRunOut.of(spec, grades[0])
