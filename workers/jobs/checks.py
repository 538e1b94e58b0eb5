"""Everything that is looked at before a job is queued, and by a preflight: files, grader, model, config.

A job ends at its first fault; a preflight goes on and tells all. Which of the two it is, `refuse` decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from app.grading.expected_cost import expected_cost, in_words
from app.jobs.models import Job
from app.models import service as models
from app.models.models import Model
from app.settings import get_settings
from graders import Grader, GraderSpec
from graders.preflight.trial import Report
from methods.hold_out import hold_out
from methods.hyperparameters import Facts
from methods.resolve import ConfigImpossible, resolve_train, usual_learning_rate
from methods.rows import MAX_VALID_ROWS, Row
from methods.train_config import TrainConfig
from methods.tune_config import TuneConfig
from methods.tuning_rows import row_check
from workers.jobs import tuning_validation
from workers.jobs.doubts import Doubt, doubts_about_files, doubts_about_rate
from workers.jobs.grader_validation import (
    GOLD_GRADER,
    build_job_grader,
    check_grader,
    check_replies,
    grading_fields,
    prices,
    reads_environment,
    simulated_user,
    try_grader,
    try_judge,
)
from workers.jobs.job_data import (
    CANARY,
    TRAINING,
    VALIDATION,
    Asked,
    DataFile,
    JobInvalid,
    ModelShape,
    canary_rows,
    find_file,
    operators_limits,
    rows_of,
)
from workers.jobs.memory_validation import check_memory
from workers.jobs.model_validation import (
    check_canary,
    check_environment,
    check_precision,
    check_response_format,
    check_tools,
    check_tools_of_rows,
    functions_of,
    model_folder,
    model_shape,
    render_prompts,
    thinking_of_job,
)

if TYPE_CHECKING:
    from workers.training.rendering.thinking import Thinking
    from workers.training.row_faults import RowDoubt

T = TypeVar("T")

MAX_DOUBTS = 10
"""Findings of the grader's trial that a job is told of. Chosen, not measured."""


class Parts(NamedTuple):
    """What the database has of a job's model and files."""

    model: Model | None
    training: DataFile
    validation: DataFile | None
    canary: DataFile | None
    is_busy: bool = False
    """Whether a training runs now."""


class Checked(NamedTuple):
    """A job that can run, and what is in doubt about it."""

    config: TrainConfig | TuneConfig
    n_rows: int
    """What `config.job_steps` counts: prompts or examples."""
    doubts: list[Doubt]
    told: Sequence[str] = ()
    """What the job says of itself beside that, in sentences."""


def find_parts(db: Session, asked: Asked) -> Parts:
    """Returns where the model and the files are that a row names."""
    validation, canary = asked.validation_file, asked.canary_file
    return Parts(
        models.find(db, asked.project_id, asked.model),
        find_file(db, TRAINING, asked.training_file),
        find_file(db, VALIDATION, validation) if validation else None,
        find_file(db, CANARY, canary) if canary else None,
        db.scalars(select(exists().where(Job.status == "running"))).one(),
    )


class Checks:
    """Checks one job. What has been read stays here; what could not be is None."""

    def __init__(
        self,
        asked: Asked,
        parts: Parts,
        scratch: Path,
        enter: Callable[[str], None],
        refuse: Callable[[JobInvalid], None],
    ) -> None:
        """`enter` is told what comes now: "reading", "rendering" or "grading". `refuse` is told of each
        fault, and may raise it."""
        self.asked = asked
        self.parts = parts
        self.kind: str = asked.method["type"]
        self.folder: Path | None = None
        self.shape: ModelShape | None = None
        self.train_rows: list[Row] | None = None
        self.valid_rows: list[Row] | None = None
        self.spec: GraderSpec | None = None
        self.grader: Grader | None = None
        self.gold: tuple[GraderSpec, Grader] | None = None
        self.trial: Report | None = None
        self.thinking: Thinking | None = None
        self.doubts: list[Doubt] = []
        self.told: list[str] = []
        self.prompt_lengths: dict[str, list[int]] = {}
        """Tokens of each prompt, by the file's field in a request; of reinforcement rows."""
        self._scratch = scratch
        self._enter = enter
        self._refuse = refuse
        self._is_faulty = False
        self._longest = 0
        """Tokens of the longest prompt, or example."""

    def run(self) -> Checked | None:
        """Returns the job as it can run, or None after a fault. Raises what `refuse` and `enter` raise."""
        self.folder = self._attempt(lambda: model_folder(self.asked.model, self.parts.model, self._scratch))
        if (folder := self.folder) is not None:
            self.shape = self._attempt(lambda: model_shape(self.asked.model, folder))
        self._enter("reading")
        self.train_rows = self._attempt(lambda: self._rows(self.parts.training))
        self.valid_rows = self._attempt(lambda: self._rows(self.parts.validation, max_rows=MAX_VALID_ROWS))
        self._attempt(self._check_canary)
        found = self._reinforcement() if self.kind == "reinforcement" else self._tuning()
        self.doubts += self._file_doubts()
        if found is not None:
            self.doubts += self._rate_doubts(found.config)
            config = found.config
            self._attempt(lambda: check_precision(Path(config.model_path), config.base_precision, self.kind))
            self.doubts += self._attempt(lambda: self._memory_doubts(config)) or []
        self._enter("grading")
        self.doubts += self._grader_doubts()
        if found is None or self._is_faulty:
            return None
        return found._replace(told=[*found.told, *self._expected_cost(found.config)])

    def _expected_cost(self, config: TrainConfig | TuneConfig) -> list[str]:
        """Returns what the job's graders will ask for in a sentence, if they ask anybody."""
        if self.spec is None or not isinstance(config, TrainConfig) or self.train_rows is None:
            return []
        n_rows = list(map(len, split_rows(config, self.train_rows, self.valid_rows or [])))
        trials = self.trial.trials if self.trial else ()
        gold = self.gold and self.gold[0]
        cost = expected_cost(config, n_rows, self.spec, gold, trials, get_settings())
        return [in_words(cost, get_settings())] if cost else []

    def _check_canary(self) -> None:
        data_file, folder, shape = self.parts.canary, self.folder, self.shape
        rows = canary_rows(data_file, self._scratch, **operators_limits())
        if data_file is not None and rows is not None and folder is not None and shape is not None:
            self._enter("rendering")
            check_canary(folder, shape.context, data_file, rows)

    def _attempt(self, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except JobInvalid as fault:
            self._is_faulty = True
            self._refuse(fault)
            return None

    def _rows(self, data_file: DataFile | None, **limits: int) -> list[Row]:
        if data_file is None:
            return []
        return rows_of(data_file, row_check(self.kind), self._scratch, **limits, **operators_limits())

    def _files(self) -> Iterator[tuple[DataFile, list[Row]]]:
        """Yields the files that could be read, with their rows."""
        for data_file, rows in (
            (self.parts.training, self.train_rows),
            (self.parts.validation, self.valid_rows),
        ):
            if data_file is not None and rows is not None:
                yield data_file, rows

    def _tuning(self) -> Checked | None:
        folder, shape, rows, valid = self.folder, self.shape, self.train_rows, self.valid_rows
        self._enter("rendering")
        if folder is None or shape is None or rows is None or valid is None:
            return None
        training, validation = (self.parts.training, rows), (self.parts.validation, valid)
        resolved = self._attempt(
            lambda: tuning_validation.resolve(self.asked, folder, shape, training, validation)
        )
        if resolved is None:
            return None
        self._longest = resolved.longest
        for data_file, doubt in resolved.doubts:
            self._note_left_out(data_file, doubt)
        return Checked(resolved.config, resolved.n_examples, self.doubts)

    def _note_left_out(self, data_file: DataFile, doubt: RowDoubt) -> None:
        """Notes what the model's template leaves out of some rows of a file."""
        self.doubts.append(Doubt("left_out_by_template", doubt.message, data_file.param, doubt.lines))

    def _reinforcement(self) -> Checked | None:
        block = self.asked.method["reinforcement"]
        built = self._attempt(lambda: build_job_grader(block["grader"], self.asked.project_id))
        self.spec, self.grader = built or (None, None)
        if "gold_grader" in block:
            self.gold = self._attempt(
                lambda: build_job_grader(block["gold_grader"], self.asked.project_id, GOLD_GRADER)
            )
        if (folder := self.folder) is not None:
            self._enter("rendering")  # the template is tried
            self._attempt(lambda: check_response_format(block.get("response_format"), folder))
            self._attempt(lambda: self._find_thinking(folder))
            self._attempt(lambda: check_tools(functions_of(block, self.train_rows or []), folder))
            self._attempt(lambda: check_environment(block.get("environment"), folder))
        for data_file, rows in self._files():
            self._check_rows(data_file, rows)
        config = self._attempt(self._resolve)
        if config is None or self.train_rows is None:
            return None
        resolved = config
        if (config := self._attempt(lambda: self._rollouts(resolved))) is None:
            return None
        if self.thinking and not self.thinking.is_void:
            self.told.append(self.thinking.told)
        return Checked(config, len(split_rows(config, self.train_rows, [])[0]), self.doubts, self.told)

    def _rollouts(self, config: TrainConfig) -> TrainConfig:
        """Returns the config with who samples its rollouts. Raises `JobInvalid`."""
        from workers.rollouts.choice import choose
        from workers.rollouts.errors import RolloutsRefused

        param = "method.reinforcement.hyperparameters.rollouts"
        try:
            is_asked = self._hyperparameters().get("rollouts") is not None
            chosen = choose(config, get_settings().vllm, is_asked=is_asked)
        except RolloutsRefused as problem:
            raise JobInvalid(problem.code, str(problem), param) from None
        if chosen.is_doubt:
            self.doubts.append(Doubt("rollouts_away", chosen.told, param))
        elif chosen.told:
            self.told.append(chosen.told)
        return chosen.config

    def _find_thinking(self, folder: Path) -> None:
        self.thinking = thinking_of_job(folder, self._hyperparameters())
        if self.thinking.is_void:
            field = "method.reinforcement.hyperparameters"
            self.doubts.append(Doubt("thinks_not", self.thinking.told, field))

    def _check_rows(self, data_file: DataFile, rows: list[Row]) -> None:
        block, project_id = self.asked.method["reinforcement"], self.asked.project_id
        names = [tool["name"] for tool in block.get("tools", ())]
        if names:
            self._attempt(lambda: check_tools_of_rows(names, data_file, rows))
        if environment := block.get("environment"):
            self._enter("grading")
            graders = self.spec, self.gold and self.gold[0]
            self._attempt(lambda: check_replies(environment, project_id, data_file, rows, graders))
        spec, grader, folder, shape = self.spec, self.grader, self.folder, self.shape
        if spec is not None and grader is not None:
            self._enter("grading")
            self._attempt(lambda: check_grader(spec, grader, data_file, rows))
        if (gold := self.gold) is not None:
            self._enter("grading")
            self._attempt(lambda: check_grader(*gold, data_file, rows, GOLD_GRADER))
        if folder is not None and shape is not None:
            self._enter("rendering")
            variables = self.thinking.variables if self.thinking else {}
            rendered = self._attempt(
                lambda: render_prompts(folder, shape.context, data_file, rows, variables)
            )
            if rendered is not None:
                self.prompt_lengths[data_file.param] = [len(prompt.tokens) for prompt in rendered.prompts]
                for doubt in rendered.doubts:
                    self._note_left_out(data_file, doubt)

    def facts(self) -> Facts | None:
        """Returns what the rules of "auto" read; None while a part of it is not known."""
        lengths = [self.prompt_lengths.get(data_file.param) for data_file, _ in self._files()]
        if self.shape is None or self.train_rows is None or self.valid_rows is None or None in lengths:
            return None
        self._longest = longest = max(max(found) for found in lengths if found)
        rows = len(self.train_rows), len(self.valid_rows)
        thinking = self.thinking
        thinks, share = (False, None) if thinking is None else (thinking.thinks, thinking.budget_share)
        return Facts(*self.shape, longest, *rows, thinks, share)

    def _resolve(self) -> TrainConfig | None:
        facts = self.facts()
        if facts is None or self.spec is None or self._is_faulty:
            return None
        try:
            return resolve_train(
                self.asked.method,
                facts,
                model=self.asked.model,
                model_path=str(self.folder),
                seed=self.asked.seed,
                resources=self.asked.resources,
                template_kwargs=self.thinking.variables if self.thinking else {},
                grading=grading_fields(self.spec, self.gold and self.gold[0]) | self._prices(),
            )
        except ConfigImpossible as problem:
            code = "invalid_training_file" if problem.param == TRAINING else "invalid_value"
            told = f"{problem.message}{self._where_longest()}" if problem.is_of_length else problem.message
            raise JobInvalid(code, told, problem.param) from None

    def _where_longest(self) -> str:
        """Says where the longest prompt is."""
        for data_file, rows in self._files():
            lengths = self.prompt_lengths[data_file.param]
            if self._longest in lengths:
                line = rows[lengths.index(self._longest)].line
                return f" It is on line {line} of the {data_file.param.replace('_', ' ')} {data_file.shown}."
        return ""

    def _prices(self) -> dict[str, Any]:
        """Returns what the job's budget counts by: its graders and its simulated user ask models."""
        specs = [spec for spec in (self.spec, self.gold and self.gold[0]) if spec is not None]
        user = simulated_user(self.asked.method["reinforcement"])
        return prices(self._hyperparameters(), *specs, simulator=user)

    def _hyperparameters(self) -> dict[str, Any]:
        found: dict[str, Any] = self.asked.method[self.kind]["hyperparameters"]
        return found

    def _file_doubts(self) -> Iterator[Doubt]:
        """Signs that the two files were swapped or overlap."""
        if self.train_rows is not None and self.valid_rows is not None:
            yield from doubts_about_files(self.train_rows, self.valid_rows)

    def _rate_doubts(self, config: TrainConfig | TuneConfig) -> Iterator[Doubt]:
        assert self.shape is not None, "a config was resolved with it"
        usual = usual_learning_rate(config, self.shape.hidden_size)
        return doubts_about_rate(config.learning_rate, usual, f"method.{self.kind}.hyperparameters")

    def _memory_doubts(self, config: TrainConfig | TuneConfig) -> list[Doubt]:
        """Raises `JobInvalid` for a job that cannot fit where it is to be trained."""
        assert self.folder is not None, "a config was resolved with it"
        message = check_memory(config, self.folder, self._longest, is_busy=self.parts.is_busy)
        return [] if message is None else [Doubt("memory_short", message, "model")]

    def _grader_doubts(self) -> Iterator[Doubt]:
        """Tries the grader on some training rows, and yields what that leaves in doubt."""
        spec, grader, rows = self.spec, self.grader, self.train_rows
        if spec is None or grader is None or not rows or reads_environment(spec):
            return
        self.trial = self._attempt(lambda: try_grader(spec, grader, rows))
        for finding in self.trial.warnings[:MAX_DOUBTS] if self.trial else ():
            message = f"The grader: {finding.message}"
            yield Doubt(f"grader_{finding.code}", message, TRAINING, finding.lines)
        if self.trial is not None:
            tried = try_judge(spec, self.asked.project_id, rows)
            self.told += tried.told
            yield from tried.doubts


def split_rows(config: TrainConfig, train: list[Row], valid: list[Row]) -> tuple[list[Row], list[Row]]:
    """Returns the rows that a run trains on, and those it validates by: held out where it asks for that."""
    return (
        hold_out(train, config.validation_split, config.seed) if config.validation_split else (train, valid)
    )
