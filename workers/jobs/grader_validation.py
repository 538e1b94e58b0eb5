"""Checks a job's grader: that it can be built, fits every row, and tells right answers from wrong ones."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from app.grading.headers import opened
from app.grading.limits import asked_models, grade_limits
from app.grading.services import grader_services
from app.settings import get_settings
from app.tools.simulator import ENVIRONMENT
from graders import FailureKind, Grader, GraderInvalid, GraderSpec, Sample, build_grader, parse_grader
from graders.calibration.asking import FEW
from graders.calibration.cases import cases_of_rows
from graders.calibration.measuring import measure
from graders.calibration.report import Measured
from graders.calibration.verdict import remarks_on_judge
from graders.environment import EnvironmentSpec
from graders.grading import grade_group_safely
from graders.preflight.trial import COSTLY_ROWS, Bounds, Report, is_costly, preflight
from graders.row_check import why_unreadable
from graders.spec import item_paths, judge_of, known_range, single_graders
from graders.template import Template, Variable
from graders.types import GroupGrader
from methods.faults import MAX_REASONS, Fault, told
from methods.rows import Row, missing_variables
from methods.train_config import NAMED
from workers.jobs.doubts import Doubt
from workers.jobs.job_data import DataFile, JobInvalid

CHECK_SECONDS = 30.0
"""After this long no further row is tried with the grader."""
SHOWN_CHARACTERS = 4000
"""How much of a failure's message is shown, its end, as in training."""
HYPERPARAMETERS = "method.reinforcement.hyperparameters"
GRADER = "method.reinforcement.grader"
GOLD_GRADER = "method.reinforcement.gold_grader"
TRIED_ANSWER = "Hello."
"""What an environment is tried with."""
TRIED_ANSWERS = (TRIED_ANSWER, "Good-bye.")
"""What a judge is tried with that compares answers."""
OF_THE_ROW = (FailureKind.INVALID_VARIABLE, FailureKind.FORMULA_PARSE, FailureKind.OTHER)
"""Failures on an empty completion that the data or the formula is to blame for."""


def grading_fields(spec: GraderSpec, gold: GraderSpec | None = None) -> dict[str, Any]:
    """What of a run's config follows from its graders and the operator's settings."""
    settings = get_settings()
    limits = grade_limits(spec, settings)
    return {
        "grade_concurrency": limits.concurrency,
        "grade_seconds": limits.seconds,
        "grade_failure_limit": settings.grade_failure_limit,
        "grade_failure_steps": settings.grade_failure_steps,
        "reward_range": known_range(spec),
        "asks_judge": any(judge_of(single) is not None for single in single_graders(spec)),
        "gold_range": None if gold is None else known_range(gold),
    }


def prices(
    hyperparameters: dict[str, Any], *specs: GraderSpec, simulator: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a budget of money counts by. Raises `JobInvalid` where what it would pay has no price."""
    if hyperparameters.get("max_cost") is None:
        return {}
    settings = get_settings()
    asked = {model for spec in specs for model in asked_models(spec, settings)}
    if simulator is not None:
        asked.add(simulator["model"])
    missing = settings.prices.unpriced(sorted(asked))
    if missing:
        who = "grader" if simulator is None else "grader or the user simulator"
        what = f"The {who} asks {', '.join(missing)}, whose price is not known"
    elif not settings.prices.models and settings.prices.device_hour == 0:
        what = "No price is known"
    else:
        return {"prices": settings.prices}
    message = f"{what}, so that max_cost would bound nothing. The operator sets CHERRY_PRICES."
    raise JobInvalid("invalid_value", message, f"{HYPERPARAMETERS}.max_cost")


def build_job_grader(raw: dict[str, Any], project_id: str, param: str = GRADER) -> tuple[GraderSpec, Grader]:
    """Builds a job's grader out of what its row keeps. Raises `JobInvalid` about `param`."""
    try:
        spec = parse_grader(opened(raw, project_id, get_settings()))
        return spec, build_grader(spec, grader_services(project_id))
    except GraderInvalid as fault:
        below = param + (f".{fault.param}" if fault.param else "")
        raise JobInvalid(fault.code, f"The {_name(param)} is invalid: {fault.message}", below) from None


def _name(param: str) -> str:
    """Returns what a grader is called in messages."""
    return param.rpartition(".")[2].replace("_", " ")


def check_grader(
    spec: GraderSpec, grader: Grader, data_file: DataFile, rows: Sequence[Row], param: str = GRADER
) -> None:
    """Every row has what the grader reads, and can be graded (here: an empty completion).

    Of a judge or a server only one answer is asked for, to see that it is there; of the other rows only what
    can be read without it is checked. Where that is slow it ends early. A grader that fails in itself on an
    empty completion is no fault of the row: the preflight tells of it.
    """
    name = _name(param)
    wanted = [Variable.parse(path) for _, path in item_paths(spec)]
    if lacks := list(missing_variables(rows, wanted)):
        lines = [row.line for row in rows if not all(variable.is_in(row.item) for variable in wanted)]
        raise data_file.invalid(f"does not fit the {name}.\n" + "\n".join(lacks), lines)
    if is_costly(spec):
        _check_readable(grader, data_file, rows, name)
        if rows:
            _check_somebody_answers(grader, rows[0], param)
        return
    faults: list[Fault] = []
    deadline = time.monotonic() + CHECK_SECONDS
    for row in rows:
        failure = grader.grade(Sample(output_text="", environment_reward=0.0), row.item).failure
        if failure and failure.kind is FailureKind.PYTHON_SERVER:
            message = f"The {name} cannot grade line {row.line}: {failure.message}"
            raise JobInvalid("python_grader_unavailable", message, param)
        if failure and failure.kind in OF_THE_ROW:
            faults.append(Fault(row.line, f"the {name} cannot grade it: {failure.message}"))
        if _is_enough(faults, deadline):
            break
    _refuse_rows(faults, data_file, name, len(rows))


def _check_readable(grader: Grader, data_file: DataFile, rows: Sequence[Row], name: str) -> None:
    """Raises `JobInvalid` for rows whose rubric or label the grader cannot read. It asks nobody."""
    faults: list[Fault] = []
    deadline = time.monotonic() + CHECK_SECONDS
    for row in rows:
        if why := why_unreadable(grader, row.item):
            faults.append(Fault(row.line, f"the {name} cannot grade it: {why}"))
        if _is_enough(faults, deadline):
            break
    _refuse_rows(faults, data_file, name, len(rows))


def _is_enough(faults: Sequence[Fault], deadline: float) -> bool:
    return len({fault.reason for fault in faults}) == MAX_REASONS or time.monotonic() > deadline


def _refuse_rows(faults: list[Fault], data_file: DataFile, name: str, n_rows: int) -> None:
    """Raises `JobInvalid` if there are faults."""
    if faults:
        lines = [fault.line for fault in faults]
        raise data_file.invalid(f"does not fit the {name}.\n" + "\n".join(told(faults, n_rows)), lines)


def simulated_user(block: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Returns the simulated user of what a job keeps; None where another, or nobody, replies."""
    environment: Mapping[str, Any] | None = block.get("environment")
    return None if environment is None or environment["type"] == NAMED else environment


def check_replies(
    environment: Mapping[str, Any],
    project_id: str,
    data_file: DataFile,
    rows: Sequence[Row],
    graders: Sequence[GraderSpec | None],
) -> None:
    """Tries who replies in a job's episodes. Raises `JobInvalid`."""
    if environment["type"] == NAMED:
        check_named_environment(
            environment, project_id, data_file, rows, [spec for spec in graders if spec is not None]
        )
    else:
        check_simulator(environment, project_id, data_file, rows)


def check_simulator(
    simulator: Mapping[str, Any], project_id: str, data_file: DataFile, rows: Sequence[Row]
) -> None:
    """Every row has what the simulated user is told, and the model that plays it answers: it is asked once.

    Raises `JobInvalid`.
    """
    from workers.environments.build import job_environment
    from workers.training.base.parts import Parts
    from workers.training.episodes.environment import EpisodeLost

    wanted = Template.parse(simulator["instructions"]).variables
    if lacks := list(missing_variables(rows, wanted, "user simulator")):
        lines = [row.line for row in rows if not all(variable.is_in(row.item) for variable in wanted)]
        raise data_file.invalid("does not fit the user simulator.\n" + "\n".join(lacks), lines)
    try:
        for row in rows[:1]:
            episode = job_environment((), simulator, project_id).start(row.item, "trace_validation")
            episode.reply(Parts(answer=TRIED_ANSWER))
    except EpisodeLost as lost:
        raise JobInvalid("grader_error", str(lost), ENVIRONMENT) from None
    except GraderInvalid as fault:
        raise JobInvalid(fault.code, fault.message, f"{ENVIRONMENT}.{fault.param}") from None


def check_named_environment(
    environment: Mapping[str, Any],
    project_id: str,
    data_file: DataFile,
    rows: Sequence[Row],
    graders: Sequence[GraderSpec],
) -> None:
    """An environment of the operator's begins the first row's episode and replies, with a reward where the
    graders read it. Raises `JobInvalid`.
    """
    from workers.environments.build import EnvironmentMissing, named_environment
    from workers.training.base.parts import Parts
    from workers.training.episodes.environment import EpisodeLost

    try:
        made = named_environment(environment, project_id)
    except EnvironmentMissing as gone:
        raise JobInvalid(gone.code, str(gone), f"{ENVIRONMENT}.name") from None
    try:
        for row in rows[:1]:
            episode = made.start(row.item, "trace_validation")
            if not episode.rewards and any(map(reads_environment, graders)):
                message = f"{made.whose} gives no reward, which the grader 'environment' reads."
                raise JobInvalid("invalid_value", message, GRADER)
            episode.reply(Parts(answer=TRIED_ANSWER))
    except EpisodeLost as lost:
        message = f"Line {rows[0].line} of the {data_file.param.replace('_', ' ')}: {lost}"
        raise JobInvalid("environment_error", message, ENVIRONMENT) from None
    finally:
        made.close()


def reads_environment(spec: GraderSpec) -> bool:
    """Tells whether a grader reads the reward of an environment."""
    return any(isinstance(single, EnvironmentSpec) for single in single_graders(spec))


def _check_somebody_answers(grader: Grader, row: Row, param: str) -> None:
    """Raises `JobInvalid` if a judge or server that the grader asks cannot answer at all."""
    answers = TRIED_ANSWERS if isinstance(grader, GroupGrader) else ("",)
    asked = [Sample(output_text=text, environment_reward=0.0) for text in answers]
    failure = grade_group_safely(grader, asked, row.item)[0].failure
    if failure and failure.kind.is_servers_fault:
        message = f"The {_name(param)} cannot grade: {failure.message}"
        raise JobInvalid("grader_error", message, param)


def try_grader(spec: GraderSpec, grader: Grader, rows: Sequence[Row]) -> Report:
    """Tries the grader on a few of the training rows. Raises `JobInvalid` if it could grade nothing at
    all."""
    items, lines = [row.item for row in rows], [row.line for row in rows]
    report = preflight(spec, grader, items, bounds=Bounds(seconds=CHECK_SECONDS), lines=lines)
    if report.hopeless:
        message = (
            f"The grader fails on every answer: {len(report.trials)} of {len(report.trials)} that were tried,"
            " and whatever the rows themselves hold. The first failure:"
            f" {report.hopeless.kind}: {report.hopeless.message[-SHOWN_CHARACTERS:]}"
        )
        raise JobInvalid("grader_error", message, GRADER)
    return report


class Tried(NamedTuple):
    """Says what came of trying a judge: doubts, and what the job says of itself beside."""

    doubts: list[Doubt]
    told: list[str]


def try_judge(spec: GraderSpec, project_id: str, rows: Sequence[Row]) -> Tried:
    """Tries the judges of a grader on a few training rows, which nobody has answered; none, where it asks
    none."""
    if all(judge_of(single) is None for single in single_graders(spec)):
        return Tried([], [])
    items, lines = [row.item for row in rows], [row.line for row in rows]
    cases = cases_of_rows(spec, items, lines, COSTLY_ROWS)
    concurrency = grade_limits(spec, get_settings()).concurrency
    bounds = replace(FEW, concurrency=concurrency)
    measured = measure(spec, grader_services(project_id, remembers=False), cases, bounds)
    doubts = [
        Doubt(f"judge_{remark.code}", f"{remark.message} {remark.advice}", GRADER)
        for remark in remarks_on_judge(measured)
    ]
    return Tried(doubts, [_cost(measured)])


def _cost(measured: Measured) -> str:
    """Says what trying the judge has cost."""
    spent, prices = measured.spent, get_settings().prices
    tokens = sum(usage.total_tokens for usage in spent.usage.values())
    money = ""
    if spent.usage and not prices.unpriced(spent.usage):
        money = f", {prices.cost(spent.usage, 0.0):.3g} {prices.currency}"
    return (
        f"The grader's judge was tried with {spent.calls} calls ({tokens:,} tokens{money}) on answers to"
        f" {COSTLY_ROWS} rows. `cherry graders check --labels` compares it with people."
    )
