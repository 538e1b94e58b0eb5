"""Checks a new job's files, grader and model before it is queued: every fault with its line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.db import limit_statements, unit_of_work
from app.disk import is_full, scratch_folder
from app.events import service as events
from app.grading.headers import opened
from app.grading.limits import asked_models, grade_limits
from app.grading.services import grader_services
from app.jobs import room, runs, status
from app.jobs.status import Claim, LeaseLost
from app.logs import configure_logging
from app.models import service as models
from app.settings import get_settings
from app.storable import clean
from graders import (
    FailureKind,
    Grader,
    GraderInvalid,
    GraderSpec,
    Sample,
    build_grader,
    parse_grader,
)
from graders.preflight.trial import Bounds, is_costly, preflight
from graders.spec import item_paths, known_range
from graders.template import Variable
from methods.faults import MAX_REASONS, Fault, told
from methods.hold_out import hold_out
from methods.hyperparameters import Facts
from methods.resolve import ConfigImpossible, resolve_train
from methods.rows import MAX_VALID_ROWS, Row, missing_variables
from methods.train_config import TrainConfig
from methods.tune_config import TuneConfig
from methods.tuning_rows import row_check
from workers.jobs import tuning_validation
from workers.jobs.attempt import Exit
from workers.jobs.job_data import (
    CANARY,
    SCRATCH,
    TRAINING,
    VALIDATION,
    DataFile,
    JobInvalid,
    canary_rows,
    find_file,
    operators_limits,
    rows_of,
)
from workers.jobs.model_validation import (
    check_response_format,
    doubts_about_tools,
    load_tokenizer,
    longest_prompt,
    model_folder,
    model_shape,
)
from workers.training.base.errors import is_panic

log = structlog.get_logger(__name__)

CHECK_SECONDS = 30.0
"""After this long no further row is tried with the grader."""
MAX_DOUBTS = 10
SHOWN_CHARACTERS = 4000
"""How much of a failure's message is shown, its end, as in training."""
HYPERPARAMETERS = "method.reinforcement.hyperparameters"
OF_THE_ROW = (FailureKind.INVALID_VARIABLE, FailureKind.FORMULA_PARSE, FailureKind.OTHER)
"""Failures on an empty completion that the data or the formula is to blame for."""


def validate_claimed(job_id: str, attempt: int) -> int:
    """Checks a claimed job and moves it on: queued, or failed with the reason.

    It is all that the child process of a validation does, and returns that child's exit code. Raises
    `MemoryError` at the limit of its memory.
    """
    settings = get_settings()
    configure_logging(settings.log_level, settings.log_format)
    limit_statements(settings.database_work_limit)
    structlog.contextvars.bind_contextvars(job_id=job_id, attempt=attempt)
    try:
        _validate(Claim(job_id, attempt, "validating_files"))
    except LeaseLost:  # cancelled meanwhile, or another worker has it
        return Exit.LEASE_LOST
    except SQLAlchemyError:
        log.exception("validation_broke_off")
        return Exit.DATABASE_AWAY
    return Exit.OUTCOME_WRITTEN


def _validate(claim: Claim) -> None:
    try:
        checked = check(claim)
    except JobInvalid as fault:
        with unit_of_work() as db:
            runs.finish_failed(db, claim, fault.code, clean(fault.message), fault.param)
        return
    except (LeaseLost, MemoryError, SQLAlchemyError):
        raise
    except Exception as problem:
        if is_full(problem):
            with unit_of_work() as db:
                room.leave_until_room(db, claim)
            return
        log.exception("validation_failed")
        with unit_of_work() as db:
            runs.finish_failed(db, claim, "server_error", "The server failed while it read the files.")
        return
    except BaseException as problem:
        if not is_panic(problem):
            raise
        with unit_of_work() as db:
            message = f"The tokenizer of the model gave up over a row: {problem}"
            runs.finish_failed(db, claim, "model_invalid", clean(message), "model")
        return
    with unit_of_work() as db:
        status.update_held(db, claim)
        for number, doubt in enumerate(checked.doubts):
            events.append(db, claim.job_id, f"doubt-{number}", doubt, level="warn")
        total_steps = checked.config.job_steps(checked.n_rows)
        runs.queue_for_training(db, claim, checked.config.model_dump(mode="json"), total_steps)


class Checked(NamedTuple):
    """A job that can run. `doubts` are sentences about data that is valid but looks wrong."""

    config: TrainConfig | TuneConfig
    n_rows: int
    """What `config.job_steps` counts: prompts or examples."""
    doubts: list[str]


def check(claim: Claim) -> Checked:
    """The resolved config of a claimed job, and what its data leaves in doubt. Raises `JobInvalid`."""
    with scratch_folder(SCRATCH) as scratch:
        return _check(claim, scratch)


def _check(claim: Claim, scratch: Path) -> Checked:
    with unit_of_work() as db:
        job = status.update_held(db, claim)
        model = models.find(db, job.project_id, job.model)
        training = find_file(db, TRAINING, job.training_file)
        validation = find_file(db, VALIDATION, job.validation_file) if job.validation_file else None
        canary = find_file(db, CANARY, job.canary_file) if job.canary_file else None
    folder = model_folder(job.model, model, scratch)
    shape = model_shape(job.model, folder)
    method = job.method["type"]
    _enter(claim, "reading")
    limits, check = operators_limits(), row_check(method)
    train_rows = rows_of(training, check, scratch, **limits)
    valid_rows = rows_of(validation, check, scratch, max_rows=MAX_VALID_ROWS, **limits) if validation else []
    canary_rows(canary, scratch, **limits)
    if method != "reinforcement":
        _enter(claim, "rendering")
        resolved = tuning_validation.resolve(
            job, str(folder), shape, load_tokenizer(folder), (training, train_rows), (validation, valid_rows)
        )
        doubts = [*_doubts(train_rows, valid_rows), *doubts_about_tools(folder, train_rows, method)]
        return Checked(*resolved, doubts)
    longest = 0
    spec, grader = _build_grader(job.method["reinforcement"]["grader"], job.project_id)
    check_response_format(job.method["reinforcement"].get("response_format"), folder)
    for data_file, rows in ((training, train_rows), (validation, valid_rows)):
        if data_file:
            _enter(claim, "grading")
            _check_grader(spec, grader, data_file, rows)
            _enter(claim, "rendering")
            longest = max(longest, longest_prompt(folder, shape.context, data_file, rows))
    try:
        config = resolve_train(
            job.method,
            Facts(shape.hidden_size, shape.context, longest, len(train_rows), len(valid_rows)),
            model=job.model,
            model_path=str(folder),
            seed=job.seed,
            resources=job.resources,
            grading=_grading_fields(spec) | _prices(job.method["reinforcement"]["hyperparameters"], spec),
        )
    except ConfigImpossible as problem:
        code = "invalid_training_file" if problem.param == TRAINING else "invalid_value"
        raise JobInvalid(code, problem.message, problem.param) from None
    doubts = [*_doubts(train_rows, valid_rows), *doubts_about_tools(folder, train_rows, method)]
    _enter(claim, "grading")
    doubts += _doubts_about(spec, grader, train_rows)
    n_rows = len(train_rows)
    if config.validation_split:
        n_rows = len(hold_out(train_rows, config.validation_split, config.seed)[0])
    return Checked(config, n_rows, doubts)


def _enter(claim: Claim, part: str) -> None:
    """Notes what comes now: if it never ends, this is what the owner is told. Raises `LeaseLost`."""
    with unit_of_work() as db:
        runs.set_phase(db, claim, part)


def _doubts(train_rows: Sequence[Row], valid_rows: Sequence[Row]) -> Iterator[str]:
    """Signs that the two files were swapped or overlap."""
    if len(valid_rows) > len(train_rows):
        yield (
            f"The validation file has more rows ({len(valid_rows)}) than the training file "
            f"({len(train_rows)}). Were the two swapped?"
        )
    trained = {_prompt_of(row) for row in train_rows}
    shared = [row.line for row in valid_rows if _prompt_of(row) in trained]
    if shared:
        yield (
            f"{len(shared)} of {len(valid_rows)} validation prompts are in the training file too "
            f"(the first on line {shared[0]}): on these, validation measures memory."
        )


def _prompt_of(row: Row) -> str:
    """What the model is asked; of a conversation to learn, all of it."""
    return json.dumps(row.item["input"]["messages"] if "messages" not in row.item else row.item["messages"])


def _grading_fields(spec: GraderSpec) -> dict[str, Any]:
    """What of a run's config follows from its grader and the operator's settings."""
    settings = get_settings()
    limits = grade_limits(spec, settings)
    return {
        "grade_concurrency": limits.concurrency,
        "grade_seconds": limits.seconds,
        "grade_failure_limit": settings.grade_failure_limit,
        "grade_failure_steps": settings.grade_failure_steps,
        "reward_range": known_range(spec),
    }


def _prices(hyperparameters: dict[str, Any], spec: GraderSpec) -> dict[str, Any]:
    """What a budget of money counts by. Raises `JobInvalid` where what it would pay has no price."""
    if hyperparameters.get("max_cost") is None:
        return {}
    settings = get_settings()
    missing = settings.prices.unpriced(asked_models(spec, settings))
    if missing:
        what = f"The grader asks {', '.join(missing)}, whose price is not known"
    elif not settings.prices.models and settings.prices.device_hour == 0:
        what = "No price is known"
    else:
        return {"prices": settings.prices}
    message = f"{what}, so that max_cost would bound nothing. The operator sets CHERRY_PRICES."
    raise JobInvalid("invalid_value", message, f"{HYPERPARAMETERS}.max_cost")


def _build_grader(raw: dict[str, Any], project_id: str) -> tuple[GraderSpec, Grader]:
    try:
        spec = parse_grader(opened(raw, project_id, get_settings()))
        return spec, build_grader(spec, grader_services(project_id))
    except GraderInvalid as fault:
        param = "method.reinforcement.grader" + (f".{fault.param}" if fault.param else "")
        raise JobInvalid(fault.code, f"The grader is invalid: {fault.message}", param) from None


def _check_grader(spec: GraderSpec, grader: Grader, data_file: DataFile, rows: Sequence[Row]) -> None:
    """Every row has what the grader reads, and can be graded (here: an empty completion).

    Of a judge or a server only one answer is asked for, to see that it is there, and the rest is not checked
    where grading is slow. A grader that fails in itself on such a completion is no fault of the row: the
    preflight tells of it.
    """
    lacks = list(missing_variables(rows, [Variable.parse(path) for _, path in item_paths(spec)]))
    if lacks:
        raise data_file.invalid("does not fit the grader.\n" + "\n".join(lacks))
    if is_costly(spec):
        if rows:
            _check_somebody_answers(grader, rows[0])
        return
    faults: list[Fault] = []
    deadline = time.monotonic() + CHECK_SECONDS
    for row in rows:
        failure = grader.grade(Sample(output_text=""), row.item).failure
        if failure and failure.kind is FailureKind.PYTHON_SERVER:
            message = f"The grader cannot grade line {row.line}: {failure.message}"
            raise JobInvalid("python_grader_unavailable", message, "method.reinforcement.grader")
        if failure and failure.kind in OF_THE_ROW:
            faults.append(Fault(row.line, f"the grader cannot grade it: {failure.message}"))
        if len({fault.reason for fault in faults}) == MAX_REASONS or time.monotonic() > deadline:
            break
    if faults:
        raise data_file.invalid("does not fit the grader.\n" + "\n".join(told(faults, len(rows))))


def _check_somebody_answers(grader: Grader, row: Row) -> None:
    """Raises `JobInvalid` if a judge or server that the grader asks cannot answer at all."""
    failure = grader.grade(Sample(output_text=""), row.item).failure
    if failure and failure.kind.is_servers_fault:
        message = f"The grader cannot grade: {failure.message}"
        raise JobInvalid("grader_error", message, "method.reinforcement.grader")


def _doubts_about(spec: GraderSpec, grader: Grader, rows: Sequence[Row]) -> Iterator[str]:
    """What a few trials of the grader on the training rows leave in doubt.

    Raises `JobInvalid` if it could grade nothing at all.
    """
    report = preflight(spec, grader, [row.item for row in rows], bounds=Bounds(seconds=CHECK_SECONDS))
    if report.hopeless:
        message = (
            f"The grader fails on every answer: {len(report.trials)} of {len(report.trials)} that were tried,"
            " and whatever the rows themselves hold. The first failure:"
            f" {report.hopeless.kind}: {report.hopeless.message[-SHOWN_CHARACTERS:]}"
        )
        raise JobInvalid("grader_error", message, "method.reinforcement.grader")
    for finding in report.warnings[:MAX_DOUBTS]:
        yield f"The grader: {finding.message}"
