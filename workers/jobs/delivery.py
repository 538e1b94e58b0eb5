"""The end of a job: results, the delivered model, or the reason why there is none."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import disk
from app.cards import service as cards
from app.checkpoints import service as checkpoints
from app.checkpoints.models import Checkpoint
from app.db import unit_of_work
from app.disk import Room
from app.events import service as events
from app.events.models import JobMetrics
from app.files import service as files
from app.ids import random_id
from app.jobs import results, runs, status
from app.jobs.models import TERMINAL, Job
from app.jobs.status import Claim
from app.models import service as models
from app.models.models import Model
from app.models.naming import tuned_model_name
from app.settings import get_settings
from app.storable import clean, storable
from app.storage import get_storage, written_folders
from methods.metrics import ARM_IS_CONTROL
from methods.train_config import TrainConfig
from workers.jobs.advice import Step, advice, drift_warning, rounding_warning
from workers.jobs.db_recorder import state_prefix
from workers.jobs.served import Served, served_warning
from workers.training.result import RunResult
from workers.training.sampling.plain_load import Loaded

log = structlog.get_logger(__name__)

LAST_WORDS = "last_words.txt"
EXIT_CODE = "exit_code.txt"
EXIT_CODE_WIDTH = 3
RESULTS_NAME = "step_metrics.csv"


class Measured(NamedTuple):
    """How a delivered model answers, loaded as the sampler does and as others do."""

    served: Served | None
    loaded: Loaded | None


def run_folder(claim: Claim) -> Path:
    """Working folder of one attempt on this machine; another attempt never touches it."""
    return get_settings().data_dir / "runs" / claim.job_id / str(claim.attempt)


def last_words(claim: Claim) -> str:
    """What a training process that crashed in Python said last."""
    try:
        return (run_folder(claim) / LAST_WORDS).read_text().strip()
    except OSError:
        return ""


def write_last_words(claim: Claim, words: str) -> None:
    """Keep what a training process says before it crashes; of several, the first knows best."""
    folder = run_folder(claim)
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), (folder / LAST_WORDS).open("x") as file:
        file.write(words[:2000])


def prepare_exit_code(claim: Claim) -> None:
    """Take the place of the exit code while there is one: later the disk may be full."""
    (run_folder(claim) / EXIT_CODE).write_text(" " * EXIT_CODE_WIDTH)


def write_exit_code(claim: Claim, code: int) -> None:
    """Tell the worker how the main process of a training ends: torchrun does not pass it on."""
    with suppress(OSError), (run_folder(claim) / EXIT_CODE).open("r+") as file:  # else it counts as crashed
        file.write(f"{code:{EXIT_CODE_WIDTH}d}")


def room_to_go_on(claim: Claim) -> Room:
    """What an attempt that ran out of room needs free before the next: as much as it had, as it writes that
    again, and what uploads leave free."""
    size = disk.size_of(run_folder(claim)) + get_settings().least_free_bytes
    return Room(str(disk.fullest(written_folders())), size)


def exit_code(claim: Claim) -> int | None:
    """How the main process of a training has ended, if it came to say so."""
    try:
        return int((run_folder(claim) / EXIT_CODE).read_text())
    except (OSError, ValueError):
        return None


def clean_up(claim: Claim) -> None:
    """Remove what an attempt leaves behind: its working folder, and the training state of a job that is
    over. What a resume needs is in storage."""
    folder = run_folder(claim)
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # another attempt's folder is there
        folder.parent.rmdir()
    with unit_of_work() as db:
        is_over = db.get_one(Job, claim.job_id).status in TERMINAL
    if is_over:
        get_storage().delete_prefix(state_prefix(claim.job_id))
        make_card(claim.job_id)


def make_card(job_id: str) -> None:
    """Signs the card of a job that is over, and keeps it. Should that fail, the first who asks for it makes
    it."""
    try:
        with unit_of_work() as db:
            cards.card_of(db, db.get_one(Job, job_id), get_settings())
    except Exception:  # the job is over and its outcome stands
        log.exception("card_not_made", job_id=job_id)


def give_up(claim: Claim, code: str, message: str) -> None:
    """End a job that cannot go on: with its best checkpoint if that gained something, else as failed."""
    message = clean(message)
    with unit_of_work() as db:
        best = checkpoints.best_checkpoint(db, status.update_held(db, claim))
        if best is None:
            runs.finish_failed(db, claim, code, message)
            return
        early = (
            f"Training stopped early ({code}): {message}\nThe checkpoint of step {best.step} is delivered."
        )
        events.append(db, claim.job_id, f"stopped-early-{claim.attempt}", early, level="warn")
        trained_tokens = events.trained_tokens(db, claim.job_id)
    deliver(claim, best.step, trained_tokens=trained_tokens)


def fail(claim: Claim, code: str, message: str) -> None:
    """End a job as failed, whatever it has gained: its checkpoints stay, but it delivers none."""
    with unit_of_work() as db:
        runs.finish_failed(db, claim, code, clean(message))


def deliver(
    claim: Claim,
    step: int,
    *,
    trained_tokens: int | None,
    result: RunResult | None = None,
    measured: Measured | None = None,
) -> None:
    """Publish the results and make the checkpoint of `step` the job's model. Raises `LeaseLost`.

    `result` is what the run says of itself, where it came to its end, and `measured` how the model answers
    beside what was trained.

    The model shares the checkpoint's files, which nothing drops once the job is over.
    """
    with unit_of_work() as db:
        job = status.update_held(db, claim)
        table = results.results_csv(db, job)
        file_id = files.reserve(db)
    stored = files.store_bytes(file_id, table.encode())
    with unit_of_work() as db:
        job = status.update_held(db, claim)
        chosen = select(Checkpoint).where(Checkpoint.job_id == job.id, Checkpoint.step == step)
        checkpoint = db.scalars(chosen).one()
        name = tuned_model_name(db, job)
        base = models.find(db, job.project_id, job.model)
        model = Model(
            id=random_id("model_"),
            name=name,
            project_id=job.project_id,
            base=job.model,
            folder=None,
            storage_key=checkpoint.storage_key,
            job_id=job.id,
            cannot_show=base.cannot_show if base else None,
        )
        db.add(model)
        file = files.create(db, job.project_id, stored, filename=RESULTS_NAME, purpose="fine-tune-results")
        verdict = _verdict(db, job, result) if result else None
        if (warning := _warning(db, job, checkpoint)) is not None:
            events.append(db, job.id, "no-better-than-base", warning, level="warn")
        _note_measured(db, checkpoint, measured or Measured(None, None))
        if (warning := _rounding(job, checkpoint)) is not None:
            events.append(db, job.id, "rounding", warning, level="warn")
        runs.finish_succeeded(
            db,
            claim,
            fine_tuned_model=name,
            result_files=[file.id],
            trained_tokens=trained_tokens,
            verdict=verdict,
            steps=result.steps if result else None,
        )
    log.info("job_succeeded", job_id=claim.job_id, attempt=claim.attempt, step=step)


def _note_measured(db: Session, delivered: Checkpoint, measured: Measured) -> None:
    """Keeps what was found of the delivered model; warns of one that answers otherwise than was trained."""
    served, loaded = measured
    for found in (served, loaded):
        if found is not None:
            delivered.trust = (delivered.trust or {}) | storable(found._asdict())
    if served is not None and (warning := served_warning(delivered.step, served)) is not None:
        events.append(db, delivered.job_id, "served-differs", warning, level="warn")


def _verdict(db: Session, job: Job, result: RunResult) -> dict[str, Any] | None:
    """Tell the verdict, and give every checkpoint the numbers that are right for all of them together."""
    if result.verdict is None:
        return None
    own = {one.step: one for one in result.judged}
    for row in db.scalars(select(Checkpoint).where(Checkpoint.job_id == job.id)):
        if (judged := own.get(row.step)) is not None:
            row.trust = (row.trust or {}) | storable({"p": judged.p, "low": judged.low, "high": judged.high})
    level: events.Level = "info" if result.verdict.step > 0 else "warn"
    events.append(db, job.id, "verdict", result.verdict.sentence, level=level)
    found: dict[str, Any] = storable(result.verdict._asdict() | _beside(result))
    return found


def _beside(result: RunResult) -> dict[str, Any]:
    """What stands beside a verdict: the job's seeds, its controls and what the gold grader says, if any."""
    beside: dict[str, Any] = {}
    if result.arms:
        beside["arms"] = [arm._asdict() for arm in result.arms]
    if result.controls:
        beside["controls"] = [control._asdict() for control in result.controls]
    if result.gold is not None:
        beside["gold"] = result.gold._asdict()
    return beside


def _warning(db: Session, job: Job, delivered: Checkpoint) -> str | None:
    """What its owner should know of a reinforcement job's result: that it is the base, or far from it."""
    if job.method["type"] != "reinforcement":
        return None
    config = TrainConfig.model_validate(job.config)
    if delivered.step > 0:
        return drift_warning(delivered.step, delivered.kl, config)
    steps = db.scalars(select(JobMetrics).where(JobMetrics.job_id == job.id).order_by(JobMetrics.step))
    history = [Step(row.step, row.values) for row in steps if ARM_IS_CONTROL not in row.values]
    return advice(history, config)


def _rounding(job: Job, delivered: Checkpoint) -> str | None:
    """What its owner should know of the dtype that the delivered weights have."""
    has_adapter = (job.config or {}).get("adapter", "lora") == "lora"
    error = (delivered.trust or {}).get("rounding_error")
    return rounding_warning(delivered.step, error, has_adapter=has_adapter)
