"""Tries a grader on completions whose worth is known, before a policy finds out what it pays for.

The reference answer of a row should get the most; empty, hostile and copied completions should not. What is
tried is bounded: a few rows, a time limit, and for graders that cost money a handful of calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, NamedTuple

from graders import strict_json
from graders.grading import grade_group_safely
from graders.preflight.beside import tests_beside
from graders.preflight.findings import Finding, Trial, findings_of
from graders.preflight.probes import Probe, plausible, probes
from graders.preflight.references import Reference, reference_at, reference_of
from graders.spec import GraderSpec, TextSimilaritySpec, judge_of, single_graders
from graders.template import Variable
from graders.types import Failure, Grader, GroupGrader, Sample

REFERENCE = "the reference answer"
COSTLY = ("endpoint",)
"""Kinds that ask somebody who may be slow, or want money, beside those that ask a judge."""
COSTLY_ROWS, COSTLY_PROBES = 2, 4
ENOUGH_FAILURES = 8
"""So many failures, with nothing graded, are worth a second look. One row has as many probes."""


@dataclass(frozen=True)
class Bounds:
    """Limits what a preflight tries.

    Attributes:
        rows: most rows, spread evenly over the data.
        probes: most probes on each row, beside the reference answer.
        seconds: after this nothing more is begun; a grade under way ends.
    """

    rows: int = 8
    probes: int = 20
    seconds: float = 30.0


class Report(NamedTuple):
    """Holds what was found, and everything that was tried.

    Attributes:
        findings: the gravest come first.
        trials: all trials, in the order they were made.
        skipped: how many trials the time was not enough for.
        hopeless: the first failure, where nothing could be graded: neither a right nor a hostile answer, nor
            what the rows themselves hold.
    """

    findings: list[Finding]
    trials: list[Trial]
    skipped: int
    seconds: float
    hopeless: Failure | None = None

    @property
    def warnings(self) -> list[Finding]:
        """Returns the findings that warn."""
        return [finding for finding in self.findings if finding.level == "warn"]

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as JSON has it."""
        return {
            "findings": [finding.as_dict() for finding in self.findings],
            "is_hopeless": self.hopeless is not None,
            "trials": [trial.as_dict() for trial in self.trials],
            "skipped": self.skipped,
            "seconds": round(self.seconds, 3),
        }


def preflight(
    spec: GraderSpec,
    grader: Grader,
    rows: Sequence[Mapping[str, Any]],
    *,
    reference: Variable | None = None,
    bounds: Bounds | None = None,
    lines: Sequence[int] | None = None,
) -> Report:
    """Tries the grader on some of the rows.

    `reference` is where a row holds its right answer; without it the grader's own templates tell, if they do.
    `lines` are those of the rows in their file; without them rows count from 1.
    """
    started = monotonic()
    bounds = _affordable(spec, bounds or Bounds())
    references = [reference_at(reference, row) if reference else reference_of(spec, row) for row in rows]
    called = range(1, len(rows) + 1) if lines is None else lines
    plan = list(_plan(rows, references, bounds))
    trials: list[Trial] = []
    for row, some in _asked_together(plan, grader):
        if monotonic() - started > bounds.seconds or _is_out_of_order(trials):
            break
        trials += _try(grader, row, called[row], rows[row], some, references[row])
    tried = list(dict.fromkeys(row for row, _ in plan))
    deadline = started + 2 * bounds.seconds
    beside = {row: found for row in tried if (found := tests_beside(grader, rows[row], deadline))}
    findings = findings_of(spec, rows, references, trials, called, beside)
    hopeless = trials[0].failure if _is_worth_a_second_look(trials, len(plan)) else None
    if hopeless and not _fails_on_what_they_hold(grader, [rows[row] for row in tried], deadline):
        hopeless = None
    return Report(findings, trials, len(plan) - len(trials), monotonic() - started, hopeless)


def _is_worth_a_second_look(trials: Sequence[Trial], planned: int) -> bool:
    """Tells whether nothing was graded, for another reason than a server that is away for now."""
    is_enough = len(trials) >= min(planned, ENOUGH_FAILURES) > 0
    return is_enough and not _is_out_of_order(trials) and all(t.counts_as is None for t in trials)


def _fails_on_what_they_hold(grader: Grader, rows: Sequence[Mapping[str, Any]], deadline: float) -> bool:
    """Tells whether nothing that rows hold can be graded either, as far as the time goes.

    A grader may rightly fail on every hostile answer: `float(sample["output_text"])` does.
    """
    for row in rows:
        plan = [(0, probe) for probe in plausible(row)]
        for _, some in _asked_together(plan, grader):
            grades = grade_group_safely(grader, [Sample(output_text=probe.text) for probe in some], row)
            if any(grade.reward is not None or _is_away(grade.failure) for grade in grades):
                return False
            if monotonic() > deadline:
                return True
    return True


def is_costly(spec: GraderSpec) -> bool:
    """Tells whether grades ask a judge model, an embedding model or another server."""
    return any(
        single.type in COSTLY or judge_of(single) is not None or _asks_for_embeddings(single)
        for single in single_graders(spec)
    )


def _asks_for_embeddings(spec: GraderSpec) -> bool:
    return isinstance(spec, TextSimilaritySpec) and spec.evaluation_metric == "cosine"


def _affordable(spec: GraderSpec, bounds: Bounds) -> Bounds:
    if not is_costly(spec):
        return bounds
    return replace(bounds, rows=min(bounds.rows, COSTLY_ROWS), probes=min(bounds.probes, COSTLY_PROBES))


def _plan(
    rows: Sequence[Mapping[str, Any]], references: Sequence[Reference | None], bounds: Bounds
) -> Iterator[tuple[int, Probe]]:
    """Yields what to try: each row's reference answer first, then one probe after the other on every row."""
    n = min(bounds.rows, len(rows))
    chosen = [i * len(rows) // n for i in range(n)]
    known = [reference for reference in references if reference is not None]
    for row in chosen:
        if reference := references[row]:
            yield row, Probe(REFERENCE, reference.text, is_hostile=False)
    found = {row: _worth_trying(rows[row], references[row], known)[: bounds.probes] for row in chosen}
    for place in range(max(map(len, found.values()), default=0)):
        for row in chosen:
            if place < len(found[row]):
                yield row, found[row][place]


def _worth_trying(
    item: Mapping[str, Any], reference: Reference | None, known: Sequence[Reference]
) -> list[Probe]:
    """Returns the probes of a row that are no right answer to it."""
    return [
        probe
        for probe in probes(item, reference, known)
        if reference is None or not _is_same(probe, reference)
    ]


def _is_same(probe: Probe, reference: Reference) -> bool:
    if probe.text.strip() == reference.text.strip():
        return True
    if reference.value is None:
        return False
    try:
        return bool(strict_json.loads(probe.text) == reference.value)
    except strict_json.StrictJsonError:
        return False


def _asked_together(
    plan: Sequence[tuple[int, Probe]], grader: Grader
) -> Iterator[tuple[int, Sequence[Probe]]]:
    """Yields the probes of a row that are graded at once: all of them, where the grader compares answers."""
    if not isinstance(grader, GroupGrader):
        yield from ((row, [probe]) for row, probe in plan)
        return
    for row in dict.fromkeys(row for row, _ in plan):
        yield row, [probe for of, probe in plan if of == row]


def _try(
    grader: Grader,
    row: int,
    line: int,
    item: Mapping[str, Any],
    some: Sequence[Probe],
    reference: Reference | None,
) -> list[Trial]:
    grades = grade_group_safely(grader, [Sample(output_text=probe.text) for probe in some], item)
    return [
        Trial(
            row=row,
            line=line,
            probe=probe.name,
            text=probe.text,
            is_reference=probe.name == REFERENCE and reference is not None,
            is_hostile=probe.is_hostile,
            value=grade.value,
            counts_as=grade.reward,
            failure=grade.failure,
            parts=dict(grade.parts),
            seconds=grade.seconds,
            usage=grade.usage,
        )
        for probe, grade in zip(some, grades, strict=True)
    ]


def _is_out_of_order(trials: Sequence[Trial]) -> bool:
    """Tells whether whoever grades cannot be reached: more calls would only cost time."""
    return bool(trials) and _is_away(trials[-1].failure)


def _is_away(failure: Failure | None) -> bool:
    return failure is not None and failure.kind.is_servers_fault
