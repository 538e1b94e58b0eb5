"""Serves the completions of a job: lists, groups, one prompt over the steps, differences and regrades."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from app.dashboard import sign_in
from app.dashboard.samples import queries, regrading, turns
from app.dashboard.samples.differences import difference
from app.dashboard.samples.download import lines
from app.dashboard.samples.history import Chosen, choose, curve
from app.dashboard.samples.shelves import as_written, grader_of, prompt_of, shelved
from app.dashboard.samples.wanted import SORTS, SPLITS, Wanted
from app.dashboard.shown import FROM_HERE, page, to_login
from app.db import unit_of_work
from app.errors import ApiError, BadRequest, NotFound
from app.jobs import service as jobs
from app.pagination import MAX_NUMBER, Cursor
from app.regrades import service as regrades
from app.regrades.models import ACTIVE
from app.rollouts import prompts
from app.rollouts.service import Place, Split, cursor_of, place_of
from graders import FailureKind

JOB = "/jobs/{job_id}"
OF_JOB = f"{JOB}/rollouts"
REGRADES = 5
"""Regrades that the page of a step names, the newest."""
STEPS_A_PAGE = 20

Whole = Annotated[int, Query(ge=0, le=MAX_NUMBER)]

router = APIRouter()


@router.get(OF_JOB)
def samples(request: Request, job_id: str) -> Response:
    """Shows the completions of a step."""
    return _samples(request, job_id, Wanted.read(request.query_params))


@router.get(f"{OF_JOB}.jsonl")
def download(request: Request, job_id: str) -> Response:
    """Sends the completions that a filter shows, all pages of them, as a file."""
    wanted = Wanted.read(request.query_params)
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        job = jobs.get(db, project.id, job_id)
        files = prompts.files_of(db, job)
        step = queries.newest_step(db, job_id, wanted.split, most=wanted.step)
    if wanted.problems or step is None:
        raise BadRequest(" ".join(wanted.problems) or f"Job {job_id} has no completions of this split.")
    row = None if wanted.line is None else prompts.row_on(files, wanted.split, wanted.line)
    name = f"{job_id}-{wanted.split}-{step}.jsonl"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    found = lines(job_id, files, step, wanted, row)
    return StreamingResponse(found, media_type="application/jsonl", headers=headers)


@router.get(f"{OF_JOB}/group")
def group(request: Request, job_id: str, split: Split, step: Whole, row: Whole) -> Response:
    """Shows all completions of one prompt at one step."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        job = jobs.get(db, project.id, job_id)
        found = queries.group(db, job_id, split, step, row)
        totals = queries.group_totals(db, job_id, split, step, [row])
        arms = queries.arms(db, job_id, [step])
        files = prompts.files_of(db, job)
    if not found:
        raise NotFound(f"Job {job_id} has no {SPLITS[split]} completions of row {row} at step {step}.")
    rows = prompts.rows_of(files, split, [row])
    groups = shelved(job, found, rows, {(step, at): total for at, total in totals.items()}, arms)
    return page(request, project, "samples/group.html", job=job, split=split, group=groups[0], splits=SPLITS)


@router.get(f"{OF_JOB}/row")
def pinned(
    request: Request,
    job_id: str,
    split: Split,
    row: Whole,
    show: Chosen = "best",
    upto: Annotated[int | None, Query(ge=0, le=MAX_NUMBER)] = None,
) -> Response:
    """Shows one prompt over the steps, the newest first, with one of its completions at each."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        job = jobs.get(db, project.id, job_id)
        totals = queries.history(db, job_id, split, row)
        steps = [step for step in reversed(totals) if upto is None or step <= upto]
        here = steps[:STEPS_A_PAGE]
        places = choose(queries.rewards(db, job_id, split, row, here), totals, row, show)
        found = queries.at_places(db, job_id, split, places)
        arms = queries.arms(db, job_id, here)
        files = prompts.files_of(db, job)
    if not totals:
        raise NotFound(f"Job {job_id} has no {SPLITS[split]} completions of row {row}.")
    rows = prompts.rows_of(files, split, [row])
    ordered = [found[place] for place in places if place in found]
    groups = shelved(job, ordered, rows, {(step, row): total for step, total in totals.items()}, arms)
    return page(
        request,
        project,
        "samples/row.html",
        job=job,
        split=split,
        row=row,
        prompt=prompt_of(rows, row),
        groups=groups,
        totals=totals,
        show=show,
        more=steps[STEPS_A_PAGE] if len(steps) > STEPS_A_PAGE else None,
        chart=curve(totals),
        splits=SPLITS,
    )


@router.get(f"{OF_JOB}/difference")
def compared(request: Request, job_id: str, before: str, after: str) -> Response:
    """Shows how one completion differs from another of the same row, word by word."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        job = jobs.get(db, project.id, job_id)
        (split, first), (other, second) = _place(before), _place(after)
        found = [queries.one(db, job_id, *at) for at in ((split, first), (other, second))]
        files = prompts.files_of(db, job)
    old, new = found
    if old is None or new is None:
        raise NotFound(f"Job {job_id} has no such completions: {before}, {after}")
    rows = prompts.rows_of(files, split, [first.row])
    told = difference(turns.answer_text(old), turns.answer_text(new))
    is_one_row = (split, first.row) == (other, second.row)
    return page(
        request,
        project,
        "samples/difference.html",
        job=job,
        split=split,
        old=old,
        new=new,
        told=told,
        prompt=prompt_of(rows, first.row),
        is_one_row=is_one_row,
        splits=SPLITS,
        ids=(before, after),
    )


@router.get(f"{OF_JOB}/one/{{sample_id}}")
def single(request: Request, job_id: str, sample_id: str) -> Response:
    """Shows one completion, as whole as a page can bear."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        job = jobs.get(db, project.id, job_id)
        split, place = _place(sample_id)
        found = queries.one(db, job_id, split, place)
        totals = queries.group_totals(db, job_id, split, place.step, [place.row])
        arms = queries.arms(db, job_id, [place.step])
        files = prompts.files_of(db, job)
    if found is None:
        raise NotFound(f"Job {job_id} has no such completion: {sample_id}")
    rows = prompts.rows_of(files, split, [place.row])
    by_step = {(place.step, row): total for row, total in totals.items()}
    groups = shelved(job, [found], rows, by_step, arms, most=turns.ALONE)
    return page(request, project, "samples/one.html", job=job, split=split, group=groups[0], splits=SPLITS)


@router.post(f"{JOB}/regrade", dependencies=FROM_HERE)
def regrade(
    request: Request,
    job_id: str,
    grader: Annotated[str, Form()] = "",
    scope: Annotated[str, Form()] = "step",
    split: Annotated[str, Form()] = "train",
    step: Annotated[int, Form(ge=0, le=MAX_NUMBER)] = 0,
) -> Response:
    """Starts a regrade. What is wrong with it is said beside the form, which keeps what was written."""
    asked = regrading.Asked(grader, scope, split, step)
    try:
        with unit_of_work() as db:
            if (project := sign_in.signed_in(request, db)) is None:
                return to_login(request)
            made = regrading.start(db, jobs.get(db, project.id, job_id), asked)
    except NotFound:
        raise
    except ApiError as refusal:
        wanted = Wanted.read({"split": split, "step": str(step)})
        return _samples(request, job_id, wanted, asked, refusal)
    return RedirectResponse(f"/dashboard/jobs/{job_id}/regrades/{made.id}", status_code=303)


@router.get(f"{JOB}/regrades/{{regrade_id}}")
def regraded(
    request: Request,
    job_id: str,
    regrade_id: str,
    order: Literal["graded", "difference"] = "difference",
    after: Cursor = None,
) -> Response:
    """Shows how far a regrade is, and both rewards of each completion beside each other."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        job = jobs.get(db, project.id, job_id)
        found = regrades.get(db, project.id, regrade_id)
        if found.job_id != job.id:
            raise NotFound(f"No such regrade: {regrade_id}")
        is_over = found.status not in ACTIVE
        order = order if is_over else "graded"
        results = regrades.list_results(db, found, order=order, after=after, limit=queries.PAGE)
        judged = regrading.judged(db, found, results.rows)
    return page(
        request,
        project,
        "samples/regrade.html",
        job=job,
        regrade=found,
        judged=judged,
        order=order,
        more=results.rows[-1].seq if results.has_more else None,
        is_over=is_over,
        splits=SPLITS,
        grader=as_written(found.grader),
    )


@router.post(f"{JOB}/regrades/{{regrade_id}}/cancel", dependencies=FROM_HERE)
def cancel(request: Request, job_id: str, regrade_id: str) -> Response:
    """Stops a regrade. What was graded stays."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        regrades.cancel(db, project.id, regrade_id)
    return RedirectResponse(f"/dashboard/jobs/{job_id}/regrades/{regrade_id}", status_code=303)


def _samples(
    request: Request,
    job_id: str,
    wanted: Wanted,
    asked: regrading.Asked | None = None,
    refusal: ApiError | None = None,
) -> Response:
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        job = jobs.get(db, project.id, job_id)
        files = prompts.files_of(db, job)
        splits = queries.splits(db, job_id)
        if splits and wanted.split not in splits:
            wanted = wanted._replace(split=splits[0], step=None)
        step = queries.newest_step(db, job_id, wanted.split, most=wanted.step)
    row = None if wanted.line is None else prompts.row_on(files, wanted.split, wanted.line)
    with unit_of_work() as db:
        at = -1 if step is None else step
        found = queries.completions(db, job_id, at, wanted, row)
        numbers = {one.row for one in found.rows}
        totals = queries.group_totals(db, job_id, wanted.split, at, numbers)
        arms = queries.arms(db, job_id, [at])
        values = {
            "total": queries.total(db, job_id, wanted.split, at),
            "steps": queries.steps(db, job_id, wanted.split, at) if step is not None else [],
            "neighbours": queries.neighbours(db, job_id, wanted.split, at),
            "regrades": regrades.list_regrades(
                db, project.id, job_id=job_id, after=None, limit=REGRADES
            ).rows,
        }
    rows = prompts.rows_of(files, wanted.split, numbers)
    groups = shelved(job, found.rows, rows, {(at, number): total for number, total in totals.items()}, arms)
    grader = asked.grader if asked else as_written(grader_of(job))
    return page(
        request,
        project,
        "samples/samples.html",
        status_code=refusal.status if refusal else 200,
        job=job,
        wanted=wanted._replace(step=step),
        step=step,
        here_splits=splits,
        groups=groups,
        n_shown=len(found.rows),
        following=cursor_of(found.rows[-1]) if found.has_more else None,
        problems=wanted.problems,
        fault=rows.fault,
        grader=grader,
        asked=asked,
        refusal=refusal,
        scopes=regrading.SCOPES,
        splits=SPLITS,
        sorts=SORTS,
        kinds=list(FailureKind),
        **values,
    )


def _place(sample_id: str) -> tuple[Split, Place]:
    split, place = sample_id.partition("-")[0], place_of(sample_id)
    if place is None or split not in SPLITS:
        raise NotFound(f"No such completion: {sample_id[:100]}")
    return split, place
