"""Carries out a preflight: all that its child process does, and the outcome that it writes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

import app.tables  # noqa: F401  # foreign keys are found by table name
from app.db import limit_statements, unit_of_work
from app.disk import scratch_folder
from app.files.integrity import StoredFileDamaged
from app.grading.expected_cost import Graded, as_json, expected_cost
from app.jobs import capacity
from app.jobs.leases import Claim, LeaseLost
from app.logs import configure_logging
from app.preflights import runs
from app.preflights.models import Preflight, Stage
from app.settings import get_settings
from app.storable import storable
from graders import Grader
from graders.preflight.trial import is_costly
from graders.spec import is_of_groups
from methods.rows import Row
from methods.train_config import TrainConfig
from methods.tuning_rows import row_check
from workers.base_models import WEIGHTS, local_folder
from workers.jobs.checks import Checks, Parts, find_parts, split_rows
from workers.jobs.faults import Exit
from workers.jobs.grader_validation import GOLD_GRADER, build_job_grader
from workers.jobs.job_data import SCRATCH, JobInvalid, rows_of
from workers.preflights.files import file_findings, length_findings, length_numbers
from workers.preflights.report import Finding, Report

log = structlog.get_logger(__name__)

LIGHT_BYTES = 2**30
"""Weights up to which a worker that validates samples by itself. Chosen, not measured: loaded for training,
they take up to eight times as much, in fp32 and twice, and such a worker's child has 8 GiB."""


def check_claimed(row_id: str, attempt: int, project_id: str, stage: Stage) -> int:
    """Carries out a claimed preflight and writes its outcome. Returns the exit code of its process.

    Raises `MemoryError` at the limit of its memory.
    """
    settings = get_settings()
    configure_logging(settings.log_level, settings.log_format)
    limit_statements(settings.database_work_limit)
    structlog.contextvars.bind_contextvars(preflight_id=row_id, attempt=attempt)
    claim = Claim(row_id, attempt, project_id)
    try:
        _carry_out(claim, stage)
    except LeaseLost:  # cancelled meanwhile, or another worker has it
        return Exit.LEASE_LOST
    except SQLAlchemyError:
        log.exception("preflight_broke_off")
        return Exit.DATABASE_AWAY
    return Exit.OUTCOME_WRITTEN


def _carry_out(claim: Claim, stage: Stage) -> None:
    with unit_of_work() as db:
        row = runs.FILES.held(db, claim)
        parts = find_parts(db, row)
    with scratch_folder(SCRATCH) as scratch:
        work = _Work(claim, stage, row, parts, scratch)
        if stage == "files" and not work.look_at_files():
            return
        work.sample()
    with unit_of_work() as db:
        runs.FILES.finish_succeeded(db, claim, report=storable(work.report.as_dict()))
    log.info("preflight_succeeded")


class _Work:
    """One preflight on its way."""

    def __init__(self, claim: Claim, stage: Stage, row: Preflight, parts: Parts, scratch: Path) -> None:
        self.report = Report(row.report if stage == "samples" else None)
        self._claim = claim
        self._row = row
        self._parts = parts
        self._scratch = scratch
        self._config = TrainConfig(**row.config) if row.config and stage == "samples" else None
        self._checks = Checks(row, parts, scratch, self._enter, self.report.refuse)

    def look_at_files(self) -> bool:
        """Fills in what files, grader and model tell.

        False if another worker goes on: samples cost more than this one has.
        """
        checked = self._checks.run()
        self.report.doubt(self._checks.doubts)
        self._enter("comparing")
        numbers, findings = file_findings(self._checks)
        self.report.set("files", numbers)
        self.report.add(*findings)
        if (lengths := length_numbers(self._checks)) is not None:
            self.report.set("lengths", lengths)
            self.report.add(*length_findings(lengths))
        if self._checks.trial is not None:
            self.report.set("grader", self._checks.trial.as_dict())
        if checked is not None and isinstance(checked.config, TrainConfig):
            self._config = checked.config
            self._tell_cost(self._config, self._checks.trial.trials if self._checks.trial else ())
        self._store()
        if self._config is None or self._wanted_prompts() == 0 or self._samples_here(self._config):
            return True
        with unit_of_work() as db:
            runs.FILES.held(db, self._claim, config=self._config.model_dump(mode="json"))
            runs.hand_over(db, self._claim, storable(self.report.as_dict()))
        return False

    def sample(self) -> None:
        """Fills in what the base's answers tell; says so where it could not be sampled."""
        config = self._config
        if config is None or self._wanted_prompts() == 0:
            return
        from workers.training.base.errors import EngineError

        try:
            self._sample(config)
        except JobInvalid as fault:
            self.report.refuse(fault)
        except EngineError as problem:
            self.report.add(Finding(problem.code, "error", str(problem)))
        except (FileNotFoundError, StoredFileDamaged) as problem:
            self.report.add(Finding("model_error", "error", str(problem), "model"))
        except (MemoryError, RuntimeError) as problem:
            if not (isinstance(problem, MemoryError) or "memory" in str(problem)):
                raise
            message = f"The base was not sampled, for lack of memory: {str(problem)[:300] or 'none is left'}"
            self.report.add(Finding("base_not_sampled", "warn", message, "model"))

    def _sample(self, config: TrainConfig) -> None:
        from workers.environments.build import environment_of
        from workers.preflights import promises
        from workers.preflights.base_samples import COSTLY, Limits, sample_base

        rows, valid_rows = split_rows(config, *self._rows())
        grader = self._grader()
        assert self._checks.spec is not None
        block = self._row.method["reinforcement"]
        compares = is_of_groups(self._checks.spec)
        asks = is_costly(self._checks.spec) or "environment" in block
        affordable = vars(COSTLY if asks else Limits())
        limits = Limits(**{**affordable, **self._row.limits})
        n_train, n_valid = len(rows), len(valid_rows)
        environment = environment_of(block, self._row.project_id)
        made = None if environment is None else environment()
        samples = sample_base(self._sampled(config), rows, grader, limits, self._tell, made)
        self._tell_cost(config, [grade for group in samples.groups for grade in group.grades])
        base = promises.base_numbers(samples, config, is_of_groups=compares)
        self.report.set("base", base)
        self.report.add(*promises.base_findings(samples, base, config, self._checks.spec))
        self.report.set("job", promises.job_numbers(samples, base, config, n_train, n_valid))
        gain = None if compares else promises.gain_numbers(samples, config, n_train, n_valid)
        if gain is not None:
            self.report.set("gain", gain)
            self.report.add(*promises.gain_findings(gain))
        lengths: dict[str, Any] = self.report.as_dict()["lengths"]
        room = lengths["context"] - lengths["prompt_tokens"]["max"]
        suggested = promises.suggested_length(samples, base, room)
        asked = {"max_completion_tokens": config.max_completion_tokens}
        self.report.set("lengths", {**lengths, **asked, "suggested_max_completion_tokens": suggested})

    def _tell_cost(self, config: TrainConfig, graded: Iterable[Graded]) -> None:
        """Says what the job's graders will ask for, where they ask anybody, by the calls of some grades."""
        self._grader()  # its spec, where another worker has built it
        assert self._checks.spec is not None
        block, gold = self._row.method["reinforcement"], None
        if "gold_grader" in block:
            gold, _ = build_job_grader(block["gold_grader"], self._row.project_id, GOLD_GRADER)
        n_rows = list(map(len, split_rows(config, *self._rows())))
        if cost := expected_cost(config, n_rows, self._checks.spec, gold, graded, get_settings()):
            self.report.set("judging", as_json(cost, get_settings()))

    def _sampled(self, config: TrainConfig) -> TrainConfig:
        """Returns the config of one process that samples: the model lies where this worker has it."""
        assert self._parts.model is not None, "its shape was read"
        folder = local_folder(self._parts.model, self._scratch / "base")
        alone = {"processes": 1, "sharding": "none", "async_steps": 0, "model_path": str(folder)}
        return config.model_copy(update=alone)

    def _rows(self) -> tuple[list[Row], list[Row]]:
        """Returns the rows of both files, read anew where another worker has read them."""
        checks = self._checks
        if checks.train_rows is not None and checks.valid_rows is not None:
            return checks.train_rows, checks.valid_rows
        self._enter("reading")
        check, validation = row_check(checks.kind), self._parts.validation
        train_rows = rows_of(self._parts.training, check, self._scratch)
        return train_rows, rows_of(validation, check, self._scratch) if validation else []

    def _grader(self) -> Grader:
        checks = self._checks
        if checks.grader is None:
            block = self._row.method["reinforcement"]
            checks.spec, checks.grader = build_job_grader(block["grader"], self._row.project_id)
        return checks.grader

    def _wanted_prompts(self) -> int:
        return int(self._row.limits.get("prompts", 1))

    def _samples_here(self, config: TrainConfig) -> bool:
        """Tells whether samples cost so little that they need not wait for a worker that trains."""
        if config.device == "cuda" or capacity.of_this_machine(get_settings()).gpus:
            return False
        weights = sum(path.stat().st_size for path in Path(config.model_path).glob(f"*{WEIGHTS}"))
        return 0 < weights <= LIGHT_BYTES

    def _enter(self, phase: str) -> None:
        self._tell(phase, 0, 0)

    def _tell(self, phase: str, done: int, total: int) -> None:
        with unit_of_work() as db:
            runs.FILES.enter(db, self._claim, phase, done, total)

    def _store(self) -> None:
        """Lets the owner see what was found so far."""
        with unit_of_work() as db:
            runs.FILES.held(db, self._claim, report=storable(self.report.as_dict()))
