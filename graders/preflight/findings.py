"""Finds what trials of a grader show."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from graders.preflight.references import Reference
from graders.preflight.unasked import unasked_fields
from graders.spec import GraderSpec, MultiSpec, is_of_groups
from graders.thoughts import FAMILIES
from graders.types import Failure, Usage

NEAR = 0.99
"""From this share of the way up, a completion counts as at the top."""
EVEN = 0.9
"""Reference answers that score less than this share of the best one are reported."""
ROUNDING = 1e-9
"""Rewards closer together than this share of the largest of them are equal. Chosen, not measured: far above
the rounding of a double.
"""
SLOW_SECONDS = 1.0
SHOWN_ROWS, SHOWN_TEXT = 5, 120

Named = Callable[[Sequence[int]], str]
"""Says in words which lines some rows are."""


@dataclass(frozen=True)
class Trial:
    """Records one completion that was graded.

    Attributes:
        row: 0-based index in the data.
        line: what people know the row by, from 1.
        probe: what kind of completion it was.
        is_hostile: whether it must not reach the top.
        counts_as: the reward a policy would get for it; None if it would get none.
        parts: scores of sub-graders and fields.
    """

    row: int
    line: int
    probe: str
    text: str
    is_reference: bool
    is_hostile: bool
    value: float | None
    counts_as: float | None
    failure: Failure | None
    parts: Mapping[str, float]
    seconds: float
    usage: Usage = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Returns the trial as JSON has it; long texts are cut."""
        failure = {"kind": self.failure.kind.value, "message": self.failure.message} if self.failure else None
        return {
            "line": self.line,
            "probe": self.probe,
            "text": _cut(self.text),
            "value": self.value,
            "failure": failure,
            "seconds": round(self.seconds, 4),
        }


@dataclass(frozen=True)
class Finding:
    """Tells something to know of a grader.

    Attributes:
        rows: indices, from 0; none where all are concerned.
        lines: what people know these rows by, from 1.
    """

    code: str
    level: Literal["warn", "info"]
    message: str
    rows: tuple[int, ...] = ()
    lines: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Returns the finding as JSON has it."""
        return {"code": self.code, "level": self.level, "message": self.message, "lines": list(self.lines)}


def findings_of(
    spec: GraderSpec,
    rows: Sequence[Mapping[str, Any]],
    references: Sequence[Reference | None],
    trials: Sequence[Trial],
    lines: Sequence[int],
    beside: Mapping[int, Sequence[str]] | None = None,
) -> list[Finding]:
    """Returns everything worth telling, warnings first.

    `references` and `lines`, what rows are called, have an entry for each row; `beside` are tests that must
    run beside the answer, by row.
    """

    def named(rows: Sequence[int]) -> str:
        return _in_words([lines[row] for row in rows])

    of_references = {trial.row: trial for trial in trials if trial.is_reference}
    constant = list(_constant(trials))
    found = [
        *_unknown_reference(references, named),
        *_failures(trials, named),
        *_unasked(spec, rows),
        *_beside(beside or {}, named),
        *_unseen_thoughts(spec),
        *_below_maximum(spec, of_references, named),
        *_uneven(spec, of_references, named),
        *constant,
        *(() if constant else _at_top(spec, of_references, trials, named)),
        *(() if constant else _flat_rows(trials, named)),
        *_contradictions(rows, references, named),
        *_range(trials),
        *_slow(trials),
    ]
    placed = [replace(finding, lines=tuple(lines[row] for row in finding.rows)) for finding in found]
    return sorted(placed, key=lambda finding: finding.level != "warn")


def maximum_of(spec: GraderSpec) -> float | None:
    """Returns the most that a grader can give; None where that is not known."""
    kind: str = spec.type
    match kind:
        case "text_similarity":
            # METEOR gives a copy less than 1, by its length.
            return None if getattr(spec, "evaluation_metric", "") == "meteor" else 1.0
        case "score_model":
            bounds = getattr(spec, "range", None) or (0.0, 1.0)
            return float(bounds[1])
        case "python" | "endpoint" | "environment" | "multi" | "rlvr" | "rank":
            return None
        case _:
            return 1.0


def _unknown_reference(references: Sequence[Reference | None], named: Named) -> Iterator[Finding]:
    missing = tuple(row for row, reference in enumerate(references) if reference is None)
    if not missing:
        return
    which = "" if len(missing) == len(references) else f" of {named(missing)}"
    message = f"The right answer{which} is not known from the grader: name the row's key that holds it."
    yield Finding("reference_unknown", "info", message, missing)


def _unasked(spec: GraderSpec, rows: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Finds declared fields that never count, of all rows."""
    for path in unasked_fields(spec, rows)[:SHOWN_ROWS]:
        message = f"No row's reference has the field '{path}', so it never counts. Is its name misspelt?"
        yield Finding("field_never_asked", "warn", message)


def _beside(beside: Mapping[int, Sequence[str]], named: Named) -> Iterator[Finding]:
    """Finds tests that an answer could tamper with."""
    if beside:
        rows = tuple(beside)
        message = (
            f"Tests run in one process with the answer, which could tamper with them ({named(rows)}; "
            f"{beside[rows[0]][0]}). Write asserts that call the answer's functions with plain values."
        )
        yield Finding("tests_beside_the_answer", "warn", message, rows)


def _unseen_thoughts(spec: GraderSpec) -> Iterator[Finding]:
    """Finds graders that speak of a tag which opens thoughts, and never see one."""
    parts = spec.subgraders if isinstance(spec, MultiSpec) else {"": spec}
    for key, part in parts.items():
        setting = spec.thoughts_of(key) if isinstance(spec, MultiSpec) else spec.thoughts
        if setting != "auto":
            continue
        said = json.dumps(part.model_dump(mode="json"), ensure_ascii=False)
        if named := [opened for opened, _ in FAMILIES if opened in said]:
            message = (
                f"The grader '{part.name}' names {named[0]}, but sees answers without their thoughts: give "
                'it "thoughts": "none" if it should see them.'
            )
            yield Finding("thoughts_unseen", "warn", message)


def _failures(trials: Sequence[Trial], named: Named) -> Iterator[Finding]:
    """Finds failures by the grader's own fault: one finding for the references and one for the rest."""
    for code, is_reference, what in (
        ("reference_fails", True, "The grader fails on the reference answer"),
        ("grader_fails", False, "The grader fails on other answers, which then leave the training"),
    ):
        asked = [trial for trial in trials if trial.is_reference == is_reference]
        failed = [trial for trial in asked if trial.counts_as is None or (is_reference and trial.failure)]
        for failure in [trial.failure for trial in failed[:1] if trial.failure]:
            rows = _rows(failed)
            why = f"{failed[0].probe}: {failure.kind}: {_last_line(failure.message)}"
            message = f"{what} in {len(failed)} of {len(asked)} tries ({named(rows)}; {why})."
            yield Finding(code, "warn", message, rows)


def _below_maximum(spec: GraderSpec, references: Mapping[int, Trial], named: Named) -> Iterator[Finding]:
    """Finds references that get less than the grader, or a sub-grader of it, can give."""
    scored = {row: trial for row, trial in references.items() if trial.value is not None}
    if isinstance(spec, MultiSpec):
        for key, part in spec.subgraders.items():
            values = {row: trial.parts[key] for row, trial in scored.items() if key in trial.parts}
            yield from _short_of(maximum_of(part), values, f" from '{key}'", named)
        return
    values = {row: trial.value or 0.0 for row, trial in scored.items()}
    yield from _short_of(maximum_of(spec), values, "", named)


def _short_of(most: float | None, values: Mapping[int, float], where: str, named: Named) -> Iterator[Finding]:
    rows = tuple(row for row, value in values.items() if most is not None and value < most - 1e-6)
    if rows:
        message = (
            f"The reference answer gets {_number(values[rows[0]])}{where}, not {_number(most or 0.0)}, "
            f"on {len(rows)} of {len(values)} rows tried ({named(rows)})."
        )
        yield Finding("reference_below_maximum", "warn", message, rows)


def _uneven(spec: GraderSpec, references: Mapping[int, Trial], named: Named) -> Iterator[Finding]:
    """Finds rows whose reference is worth much less than another's.

    It looks only where no maximum is known to compare with, and where values of different rows say something
    about each other: not where answers are compared with those to the same row.
    """
    if is_of_groups(spec):
        return
    values = {row: trial.value for row, trial in references.items() if trial.value is not None}
    best = max(values.values(), default=0.0)
    low = tuple(row for row, value in values.items() if best > 0 and value < EVEN * best)
    if low and maximum_of(spec) is None:
        message = (
            f"Rows disagree: the reference answer gets {_number(best)} on one row and "
            f"{_number(min(values.values()))} on another (low on {named(low)})."
        )
        yield Finding("rows_disagree", "warn", message, low)


def _are_all_equal(values: Sequence[float]) -> bool:
    """Whether three rewards or more, of whatever size, are the same but for rounding."""
    return len(values) >= 3 and max(values) - min(values) <= ROUNDING * max(map(abs, values))


def _constant(trials: Sequence[Trial]) -> Iterator[Finding]:
    values = [value for trial in trials if (value := trial.counts_as) is not None]
    is_meant = not any(trial.is_reference for trial in trials) and max(values, default=0.0) <= 0
    if _are_all_equal(values) and not is_meant:
        message = f"All {len(values)} answers tried get {_number(values[0])}: nothing can be learnt from it."
        yield Finding("constant", "warn", message)


def _flat_rows(trials: Sequence[Trial], named: Named) -> Iterator[Finding]:
    """Finds rows on which nothing matters, such as those with an empty reference."""
    by_row: dict[int, list[float]] = defaultdict(list)
    for trial in trials:
        if (value := trial.counts_as) is not None:
            by_row[trial.row].append(value)
    if not any(trial.is_reference for trial in trials):
        by_row = {row: values for row, values in by_row.items() if max(values) > 0}
    flat = tuple(row for row, values in by_row.items() if _are_all_equal(values))
    if flat:
        shown = _number(by_row[flat[0]][0])
        message = f"On {named(flat)} every answer tried gets the same ({shown}): nothing is learnt there."
        yield Finding("row_is_constant", "warn", message, flat)


def _at_top(
    spec: GraderSpec, references: Mapping[int, Trial], trials: Sequence[Trial], named: Named
) -> Iterator[Finding]:
    """Finds wrong completions that get as much as the right one."""
    lowest: dict[int, float] = {}
    for trial in trials:
        if (value := trial.counts_as) is not None:
            lowest[trial.row] = min(value, lowest.get(trial.row, value))
    reached: dict[tuple[str, bool], list[Trial]] = defaultdict(list)
    for trial in trials:
        top = _top(spec, references.get(trial.row))
        value = trial.counts_as
        if trial.is_reference or top is None or value is None or top <= lowest[trial.row]:
            continue
        if value >= lowest[trial.row] + NEAR * (top - lowest[trial.row]):
            reached[trial.probe, trial.is_hostile].append(trial)
    yield from _reached(reached, True, "hostile_at_top", "Wrong answers get as much as the right one", named)
    yield from _reached(reached, False, "chatter_at_top", "Words around the right answer cost nothing", named)


def _reached(
    reached: Mapping[tuple[str, bool], Sequence[Trial]], is_hostile: bool, code: str, what: str, named: Named
) -> Iterator[Finding]:
    mine = {probe: found for (probe, hostile), found in reached.items() if hostile == is_hostile}
    if not mine:
        return
    listed = "; ".join(
        f"{probe} ({_number(found[0].counts_as or 0.0)} on {named(_rows(found))})"
        for probe, found in mine.items()
    )
    rows = _rows([trial for found in mine.values() for trial in found])
    yield Finding(code, "warn" if is_hostile else "info", f"{what}: {listed}.", rows)


def _top(spec: GraderSpec, reference: Trial | None) -> float | None:
    if reference is not None and reference.value is not None:
        return reference.value
    return maximum_of(spec)


def _contradictions(
    rows: Sequence[Mapping[str, Any]], references: Sequence[Reference | None], named: Named
) -> Iterator[Finding]:
    """Finds rows with the same prompt and other right answers."""
    first: dict[str, int] = {}
    clashing = []
    for row, (item, reference) in enumerate(zip(rows, references, strict=True)):
        if reference is None or "messages" not in item:
            continue
        earlier = first.setdefault(json.dumps(item["messages"], sort_keys=True), row)
        if (other := references[earlier]) is not None and other.text != reference.text:
            clashing += [earlier, row]
    if clashing:
        rows_ = tuple(dict.fromkeys(clashing))
        message = f"Rows with the same prompt have different right answers ({named(rows_)})."
        yield Finding("prompts_disagree", "warn", message, rows_)


def _range(trials: Sequence[Trial]) -> Iterator[Finding]:
    values = [trial.value for trial in trials if trial.value is not None]
    if values and (min(values) < -1e-9 or max(values) > 1 + 1e-9):
        message = f"Rewards go from {_number(min(values))} to {_number(max(values))}, beyond 0 to 1."
        yield Finding("range", "info", f"{message} The KL penalty weighs the less the larger rewards are.")


def _slow(trials: Sequence[Trial]) -> Iterator[Finding]:
    mean = sum(trial.seconds for trial in trials) / max(1, len(trials))
    if mean > SLOW_SECONDS:
        message = (
            f"A grade takes {mean:.1f} s: sampling 64 answers waits at least {64 * mean / 8:.0f} s for them."
        )
        yield Finding("slow", "info", message)


def _rows(trials: Sequence[Trial]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(trial.row for trial in trials))


def _in_words(lines: Sequence[int]) -> str:
    """Returns `line 3`, or `lines 3, 7 and 12 more`."""
    shown = ", ".join(map(str, lines[:SHOWN_ROWS]))
    more = f" and {len(lines) - SHOWN_ROWS} more" if len(lines) > SHOWN_ROWS else ""
    return f"line{'s' if len(lines) > 1 else ''} {shown}{more}"


def _last_line(message: str) -> str:
    """Returns the last line of a message, which in a traceback says what was wrong."""
    return _cut(message.strip().rsplit("\n", 1)[-1])


def _number(value: float) -> str:
    return f"{value:.4g}"


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_TEXT else text[: SHOWN_TEXT - 3] + "..."
