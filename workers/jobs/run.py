"""The training process: `python -m workers.jobs.run JOB_ID --attempt N`. Started by workers/jobs/attempt.py.

Under torchrun there are several of them. The main one speaks with database and storage; the others are told
by it what to do, and say nothing. Seeds that train side by side have processes of their own (seats.py).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NamedTuple

import structlog
from torch.distributed import DistError

import app.tables  # noqa: F401  # foreign keys are found by table name
from app.db import limit_statements, unit_of_work
from app.devices.claims import join, share_of_trainings
from app.files.integrity import StoredFileDamaged
from app.grading.headers import opened
from app.jobs import status
from app.jobs.status import Claim, LeaseLost
from app.jobs.training_mark import mark_training
from app.logs import configure_logging
from app.models import service as models
from app.models.models import Model
from app.settings import get_settings
from app.storage import get_storage
from graders import parse_grader
from graders.spec import GraderSpec
from methods.model_files.precision import QUANTISED
from methods.rows import Row
from methods.train_config import TrainConfig
from methods.tune_config import TuneConfig, read_config
from methods.tuning_rows import row_check
from workers.base_models import MODEL, folder_if_there, local_folder
from workers.environments.build import environment_of
from workers.jobs import delivery, leftovers, provenance
from workers.jobs.checks import split_rows
from workers.jobs.db_recorder import DatabaseRecorder
from workers.jobs.faults import Exit, exit_code_of
from workers.jobs.job_data import CANARY, TRAINING, VALIDATION, JobInvalid, canary_rows, find_file, rows_of
from workers.jobs.restoring import carry_on_pass_tokens, keep_pass_tokens, restore
from workers.jobs.seats import build_graders, seats_of, services_of_job
from workers.jobs.served import check_served
from workers.jobs.sinks.shown import shown_elsewhere
from workers.rollouts.choice import rollouts_of
from workers.training.arms.beside import ArmLost
from workers.training.base.device_memory import limit_share
from workers.training.base.distributed import World
from workers.training.base.errors import (
    FlatReward,
    GradingFailed,
    ModelInvalid,
    PassTooLarge,
    RunCancelled,
    RunFailed,
    RunPaused,
)
from workers.training.base.recorder import Recorder
from workers.training.episodes.environment import Environment
from workers.training.loop import train
from workers.training.model.base_model import compute_dtype
from workers.training.passes.first_use import COMPILES, will_compile
from workers.training.recorders import Silent
from workers.training.result import RunResult
from workers.training.sampling.plain_load import check_loaded

log = structlog.get_logger(__name__)

Device = Literal["auto", "cpu", "cuda"]
OTHER_LOST = "another of its processes was lost, perhaps for lack of memory"


class StopRequested:
    """True once SIGTERM has come: the run ends at its next step."""

    def __init__(self) -> None:
        self._came = False
        signal.signal(signal.SIGTERM, self._note)

    def __call__(self) -> bool:
        return self._came

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        self._came = True


class Work(NamedTuple):
    """What a job's row and files say a run needs."""

    config: TrainConfig | TuneConfig
    train_rows: list[Row]
    valid_rows: list[Row]
    canary_rows: list[Row] | None
    """None for those of the package."""
    grader: GraderSpec | None
    """None where nothing is graded."""
    gold: GraderSpec | None
    """None without a second one that is only measured by."""
    environment: partial[Environment] | None
    """Makes what replies to the policy; None where completions have one turn."""
    project_id: str
    job_id: str
    most_pass_tokens: int | None = None
    """What attempts before have left of the tokens of a pass; None where none was too large."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workers.jobs.run")
    parser.add_argument("job_id")
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    arguments = parser.parse_args()
    settings = get_settings()
    configure_logging(settings.log_level, settings.log_format)
    limit_statements(settings.database_work_limit)
    join()
    claim = Claim(arguments.job_id, arguments.attempt, "running")
    structlog.contextvars.bind_contextvars(job_id=claim.job_id, attempt=claim.attempt)
    rank = int(os.environ.get("RANK", "0"))
    code = (
        run(claim, StopRequested(), arguments.device) if rank == 0 else assist(claim, rank, arguments.device)
    )
    if "RANK" in os.environ and code is not Exit.CRASHED:
        code = Exit.OUTCOME_WRITTEN  # anything else makes torchrun end the others, who may not be done
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking torch down in order takes seconds, and the next job waits


def run(claim: Claim, should_stop: StopRequested, device: Device) -> Exit:
    """Train the job and write its outcome, as far as this process can."""
    with mark_training(get_settings().data_dir):
        code = _run(claim, should_stop, device)
    delivery.write_exit_code(claim, code)
    return code


def _run(claim: Claim, should_stop: StopRequested, device: Device) -> Exit:
    try:
        folder = delivery.run_folder(claim)
        _remove_older(folder, claim.attempt)
        folder.mkdir(parents=True, exist_ok=True)
        delivery.prepare_exit_code(claim)
        _train_and_deliver(claim, folder, should_stop, device)
    except RunCancelled:
        return Exit.STOPPED
    except RunPaused:
        return Exit.PAUSED
    except LeaseLost:
        log.warning("lease_lost")
        return Exit.LEASE_LOST
    except ArmLost as lost:
        if lost.code in (Exit.DATABASE_AWAY, Exit.NO_ROOM):
            return Exit(lost.code)
        delivery.write_last_words(claim, str(lost))
        return Exit.CRASHED
    except Exception as problem:
        code = exit_code_of(problem)
        if code is Exit.CRASHED:
            return _crashed(claim, problem)
        log.warning("no_room" if code is Exit.NO_ROOM else "database_away", problem=str(problem))
        return code
    return Exit.OUTCOME_WRITTEN


def assist(claim: Claim, rank: int, device: Device) -> Exit:
    """Train the job together with the main process, which alone decides and writes."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the main process says when to stop
    structlog.contextvars.bind_contextvars(rank=rank)
    try:
        world = World.from_environment(device)
        work = world.broadcast(_nothing_yet())
        if work is not None:
            _train(work, Silent(), delivery.run_folder(claim), world)
    except (RunCancelled, RunPaused, RunFailed):
        pass  # every process comes to the same end
    except Exception as problem:
        if delivery.exit_code(claim) is None:  # else the main process has left, and knows why
            return _crashed(claim, problem)
    return Exit.OUTCOME_WRITTEN


def _nothing_yet() -> Work | None:
    return None


def _crashed(claim: Claim, problem: Exception) -> Exit:
    traceback.print_exc()
    delivery.write_last_words(claim, _words_for(problem))
    if isinstance(problem, PassTooLarge):
        keep_pass_tokens(claim, problem.tokens)
    return Exit.CRASHED


def _words_for(problem: Exception) -> str:
    if isinstance(problem, PassTooLarge):
        return str(problem).rstrip(".")
    return OTHER_LOST if _is_loss_of_another(problem) else f"{type(problem).__name__}: {problem}"


def _is_loss_of_another(problem: Exception) -> bool:
    """Whether a call to the other processes found one gone; gloo's errors have no type of their own."""
    return "RANK" in os.environ and (isinstance(problem, DistError) or "gloo" in str(problem))


def _remove_older(folder: Path, attempt: int) -> None:
    """Remove working folders of attempts before `attempt`: those are over, or fenced off."""
    for other in folder.parent.glob("*"):
        if int(other.name) < attempt:
            shutil.rmtree(other, ignore_errors=True)


def _train_and_deliver(claim: Claim, folder: Path, should_stop: StopRequested, device: Device) -> None:
    try:
        world = World.from_environment(device)
        work = _tell_others(world, lambda: _prepare(claim, folder))
        recorder = DatabaseRecorder(claim, get_storage())
        if will_compile(world.device(work.config.device)):
            recorder.note("info", COMPILES)
        with shown_elsewhere(recorder, claim) as telling:
            result = _train(
                work, telling, folder, world, should_stop, recorder.is_pause_asked, recorder.remark
            )
    except RunFailed as failure:  # the same run again would fail again
        log.warning("run_failed", code=failure.code)
        end = delivery.fail if isinstance(failure, (FlatReward, GradingFailed)) else delivery.give_up
        end(claim, failure.code, str(failure))
        return
    config = work.config
    # A tuned base is served merged, and so is what was trained beside a quantised one.
    is_merged = config.origin_path is not None or config.base_precision in QUANTISED
    base = None if is_merged else Path(config.model_path)
    best, place = result.best.folder, world.device(config.device)
    served = check_served(best, base, place)
    computed = compute_dtype(best / MODEL, place, config.adapter, config.dtype, config.base_precision)
    loaded = check_loaded(best, computed, place)
    measured = delivery.Measured(served, loaded)
    delivery.deliver(
        claim, result.best.step, trained_tokens=result.trained_tokens, result=result, measured=measured
    )


def _tell_others(world: World, prepare: Callable[[], Work]) -> Work:
    """Do what is to be done before all can start, and tell them; or that there is nothing to start."""
    work = None
    try:
        work = prepare()
    finally:
        world.broadcast(work)
    return work


def _prepare(claim: Claim, folder: Path) -> Work:
    work = _load(claim, folder)._replace(most_pass_tokens=carry_on_pass_tokens(claim))
    leftovers.remove_half_written(claim)
    restore(claim, folder)
    return work


def _never() -> bool:
    return False


def _train(
    work: Work,
    recorder: Recorder,
    folder: Path,
    world: World,
    should_stop: Callable[[], bool] = _never,
    should_pause: Callable[[], bool] = _never,
    remark: Callable[[str], None] = lambda _: None,
) -> RunResult:
    """An assistant is not asked, and tells nothing: the main process says when to end."""
    limit_share(world.device(work.config.device), share_of_trainings(get_settings()))
    rows = (work.train_rows, work.valid_rows)
    if isinstance(work.config, TuneConfig):
        from workers.tuning.run import tune  # TRL takes seconds to import

        return tune(work.config, *rows, recorder, folder, should_stop, should_pause, work.canary_rows)
    assert work.grader is not None
    graders = (work.grader, work.gold, work.project_id)
    grader, gold = build_graders(*graders, remark)
    rollouts = rollouts_of(work.config, work.job_id)
    environment, services = work.environment, services_of_job(work.project_id, remark)
    return train(
        work.config,
        *rows,
        grader,
        recorder,
        folder,
        should_stop,
        world,
        should_pause,
        work.canary_rows,
        gold,
        seats_of(work.config, *graders, environment, rollouts) if world.size == 1 else None,
        None if environment is None else environment(judge=services.judge),
        rollouts,
        work.most_pass_tokens,
    )


def _load(claim: Claim, folder: Path) -> Work:
    """Read what validation has found good. A file that is gone since then fails the run."""
    with unit_of_work() as db:
        job = status.update_held(db, claim)
        model = models.find(db, job.project_id, job.model)
        names = {TRAINING: job.training_file, VALIDATION: job.validation_file}
        data_files = [find_file(db, param, name) for param, name in names.items() if name]
        canary = find_file(db, CANARY, job.canary_file) if job.canary_file else None
        origin = models.origin(db, job.project_id, model)
    try:
        check = row_check(job.method["type"])
        rows = [rows_of(data_file, check, folder) for data_file in data_files]
        texts = canary_rows(canary, folder)
    except JobInvalid as fault:
        raise DataUnusable(fault) from None
    graders: dict[str, Any] = job.method["reinforcement"] if job.method["type"] == "reinforcement" else {}
    spec, gold = (
        parse_grader(opened(graders[name], job.project_id, get_settings())) if name in graders else None
        for name in ("grader", "gold_grader")
    )
    train_rows, valid_rows = [*rows, []][:2]
    folders = {
        "model_path": _base_folder(job.model, model, folder),
        "origin_path": folder_if_there(origin, folder / "origin"),
    }
    config = read_config({**(job.config or {}), **folders})
    provenance.note(claim, config, [*zip(data_files, rows, strict=True), (canary, texts)])
    if isinstance(config, TrainConfig):
        train_rows, valid_rows = split_rows(config, train_rows, valid_rows)
    environment = environment_of(graders, job.project_id)
    return Work(config, train_rows, valid_rows, texts, spec, gold, environment, job.project_id, claim.job_id)


def _base_folder(name: str, model: Model | None, folder: Path) -> str:
    """Where the base lies on this machine, which need not be the one that validated the job. A copy out of
    remote storage goes with the attempt's folder."""
    try:
        if model is None:
            raise FileNotFoundError(f"The model {name} was deleted before the training could read it.")
        return str(local_folder(model, folder / "base"))
    except FileNotFoundError as problem:
        raise ModelGone(str(problem)) from None
    except StoredFileDamaged as problem:
        raise ModelInvalid(str(problem)) from None


class DataUnusable(RunFailed):
    """A data file is not what validation has read."""

    def __init__(self, fault: JobInvalid) -> None:
        super().__init__(fault.message)
        self.code = fault.code


class ModelGone(RunFailed):
    code = "model_error"


if __name__ == "__main__":
    main()
