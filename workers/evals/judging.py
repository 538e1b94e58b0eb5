"""Judges an answer by the criteria of an eval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import regex
from jsonschema import Draft202012Validator, ValidationError, validators
from jsonschema.exceptions import best_match
from referencing import Registry
from referencing.exceptions import Unresolvable

from app.evals import criteria
from app.grading.headers import opened
from app.grading.services import grader_services
from app.settings import Settings
from app.storable import clean
from graders import Grade, Grader, GraderInvalid, GraderSpec, Sample, build_grader, parse_grader
from graders.code.spec import PythonSpec
from graders.grading import grade_safely
from graders.judges.spec import AskingSpec, EndpointSpec
from graders.spec import StringCheckSpec, TextSimilaritySpec, single_graders
from graders.template import Template
from graders.types import Usage, add_usages
from workers.evals.faults import AnswerFailed, RunInvalid

NO_ANSWER = Sample("")
NO_SAMPLE = "It reads the answer, and the row brings none: give the run a model, or the row a 'sample'."
PATTERN_SECONDS = 1.0
"""How long one pattern of an item_schema may take. Chosen, not measured."""
SHOWN = 500
"""Characters of a schema's fault that are kept. Chosen, not measured."""


class Criterion(NamedTuple):
    """A criterion, built."""

    id: str
    spec: GraderSpec
    grader: Grader

    @property
    def reads_answer(self) -> bool:
        """Tells whether it has nothing to say without an answer; code may look at the row alone."""
        return any(_reads_answer(single) for single in single_graders(self.spec))


@dataclass(frozen=True)
class Judgement:
    """What all criteria say of one answer.

    Attributes:
        status: pass, fail, or error where one of them could not judge it.
        results: as they are told.
        usage: tokens of judge models.
        is_outage: a server that a criterion asks could not reply at all.
    """

    status: str
    results: list[dict[str, Any]]
    usage: Usage
    is_outage: bool


def build(kept: Sequence[Mapping[str, Any]], project_id: str, settings: Settings) -> list[Criterion]:
    """Builds the criteria that an eval keeps. Raises `RunInvalid`."""
    built = []
    for one in kept:
        try:
            spec = parse_grader(opened(criteria.grader_of(one), project_id, settings))
            built.append(Criterion(one["id"], spec, build_grader(spec, grader_services(project_id))))
        except GraderInvalid as fault:
            message = f"The criterion '{one['id']}' cannot be used: {fault.told}"
            raise RunInvalid("invalid_criterion", message) from None
    return built


def judge(built: Sequence[Criterion], sample: Sample | None, item: Mapping[str, Any]) -> Judgement:
    """Judges an answer, or a row that brings none."""
    grades = [_grade(one, sample, item) for one in built]
    results = [_told(one, grade) for one, grade in zip(built, grades, strict=True)]
    is_outage = any(grade and grade.failure and grade.failure.kind.is_servers_fault for grade in grades)
    usage = add_usages(grade.usage for grade in grades if grade)
    return Judgement(criteria.status_of(results), results, usage, is_outage)


def _pattern(_validator: Any, pattern: str, text: Any, _schema: Any) -> Iterator[ValidationError]:
    """Holds a text against a pattern of a user's, for a time: some never end, and would hold all threads."""
    if isinstance(text, str) and not regex.search(pattern, text, timeout=PATTERN_SECONDS):
        yield ValidationError(f"{text!r} does not match {pattern!r}")


CHECKER = validators.extend(Draft202012Validator, {"pattern": _pattern})


def item_check(config: Mapping[str, Any]) -> Any:
    """Returns what rows are held against: the schema of an eval's own items. References lead nowhere else."""
    if config["type"] != "custom":
        return None
    return CHECKER(config["schema"]["properties"]["item"], registry=Registry())


def check_item(validator: Any, item: Mapping[str, Any]) -> None:
    """Raises `AnswerFailed` for a row of another form than the eval says."""
    if validator is None:
        return
    try:
        fault = best_match(validator.iter_errors(item))
    except (Unresolvable, RecursionError, TimeoutError, regex.error) as problem:
        raise AnswerFailed("invalid_item", f"The item_schema cannot be applied: {problem}"[:SHOWN]) from None
    if fault is not None:
        message = f"The row does not fit the item_schema: {fault.message[:SHOWN]} ({fault.json_path})."
        raise AnswerFailed("invalid_item", clean(message))


def _grade(one: Criterion, sample: Sample | None, item: Mapping[str, Any]) -> Grade | None:
    if sample is None and one.reads_answer:
        return None
    return grade_safely(one.grader, sample or NO_ANSWER, item)


def _told(one: Criterion, grade: Grade | None) -> dict[str, Any]:
    if grade is None:
        return criteria.not_judged(one.id, one.spec, "missing_sample", NO_SAMPLE)
    return criteria.result(one.id, one.spec, grade)


def _reads_answer(spec: GraderSpec) -> bool:
    match spec:
        case PythonSpec() | EndpointSpec():
            return False
        case StringCheckSpec() | TextSimilaritySpec() | AskingSpec():
            return any(Template.parse(text).reads_sample for _, text in spec.templates())
        case _:
            return True
