"""What a preflight says of the files: duplicates, leaks, conflicts and lengths."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from graders import GraderSpec, Sample
from graders.preflight.references import ANSWER_KEYS, reference_of
from graders.spec import item_paths
from graders.template import Variable
from methods.faults import lines_in_words
from methods.messages import text_of
from methods.rows import Row
from workers.jobs.checks import Checks
from workers.jobs.job_data import TRAINING, VALIDATION
from workers.preflights.duplicates import Prompt, find_conflicts, find_copies, prompt_of
from workers.preflights.report import Finding

NAMES = {TRAINING: "training", VALIDATION: "validation"}
TIGHT = 0.9
"""Share of the model's context that the longest prompt may fill before that is told. Chosen, not measured."""
NOTHING = Sample("")


class Asked(NamedTuple):
    """A prompt, and the file it is of."""

    param: str
    prompt: Prompt


def file_findings(checks: Checks) -> tuple[dict[str, Any], list[Finding]]:
    """Returns the numbers of the files that could be read, and what is to be told of them."""
    asked = [
        Asked(param, asked_by(row, checks.kind, checks.spec))
        for param, rows in ((TRAINING, checks.train_rows), (VALIDATION, checks.valid_rows))
        for row in rows or ()
    ]
    numbers: dict[str, Any] = {
        "training_rows": len(checks.train_rows) if checks.train_rows is not None else None,
        "validation_rows": len(checks.valid_rows) if checks.valid_rows is not None else None,
    }
    copied, findings = _copies(asked)
    conflicts = find_conflicts([each.prompt for each in asked])
    numbers |= copied | {"conflicting_rows": sum(map(len, conflicts))}
    return numbers, [*findings, *_conflicts(asked, conflicts)]


def _copies(asked: Sequence[Asked]) -> tuple[dict[str, int], list[Finding]]:
    """Returns how many prompts are there twice, within a file and across both."""
    copies = find_copies([each.prompt for each in asked])
    numbers: dict[str, int] = {}
    findings: list[Finding] = []
    for is_exact in (True, False):
        how = "exact" if is_exact else "near"
        for param in (TRAINING, VALIDATION):
            mine = [c for c in copies if c.is_exact == is_exact and asked[c.place].param == param]
            within = [asked[c.place].prompt.line for c in mine if asked[c.first].param == param]
            across = [asked[c.place].prompt.line for c in mine if asked[c.first].param != param]
            numbers[f"{how}_duplicates_in_{NAMES[param]}"] = len(within)
            if within:
                findings.append(_within(param, within, is_exact))
            if param == VALIDATION:
                numbers[f"{how}_leaks"] = len(across)
                if across and not is_exact:  # of exact ones the shared check tells
                    findings.append(_leak(across))
    return numbers, findings


def _within(param: str, lines: list[int], is_exact: bool) -> Finding:
    how = "repeat an earlier prompt" if is_exact else "are nearly an earlier prompt"
    outcome = "they count several times" if param == TRAINING else "together they show no more than one"
    where = f"{_rows(len(lines))} of the {NAMES[param]} file"
    message = f"{where} {how} of it ({lines_in_words(lines)}): {outcome}."
    code = f"{'exact' if is_exact else 'near'}_duplicates"
    return Finding(code, "warn" if is_exact else "info", message, param, lines)


def _leak(lines: list[int]) -> Finding:
    message = (
        f"{_rows(len(lines))} of the validation file have nearly the prompt of a training row"
        f" ({lines_in_words(lines)}): on these, validation measures memory."
    )
    return Finding("near_leak", "warn", message, VALIDATION, lines)


def _conflicts(asked: Sequence[Asked], conflicts: Sequence[Sequence[int]]) -> Iterator[Finding]:
    for param in (TRAINING, VALIDATION):
        places = [asked[place] for group in conflicts for place in group]
        lines = [each.prompt.line for each in places if each.param == param]
        if lines:
            message = (
                f"{_rows(len(lines))} of the {NAMES[param]} file have a prompt that another row has too, with"
                f" another reference ({lines_in_words(lines)}): no answer is right for both."
            )
            yield Finding("conflicting_references", "warn", message, param, lines)


def length_numbers(checks: Checks) -> dict[str, Any] | None:
    """Returns the lengths of all prompts, in tokens, against the model's context."""
    lengths = sorted(length for found in checks.prompt_lengths.values() for length in found)
    if not lengths or checks.shape is None:
        return None
    return {
        "context": checks.shape.context,
        "prompt_tokens": {
            "p50": percentile(lengths, 50),
            "p95": percentile(lengths, 95),
            "max": lengths[-1],
        },
    }


def length_findings(numbers: Mapping[str, Any]) -> Iterator[Finding]:
    """Says so if the longest prompt leaves little room."""
    longest, context = numbers["prompt_tokens"]["max"], numbers["context"]
    if longest > TIGHT * context:
        message = (
            f"The longest prompt has {longest:,} tokens and leaves {context - longest:,} of the model's"
            f" {context:,} for an answer; every answer of the job is cut there."
        )
        yield Finding("prompts_long", "warn", message, TRAINING)


def percentile(ordered: Sequence[int], share: int) -> int:
    """Returns the least value that so many per cent do not exceed (nearest rank)."""
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)]


def asked_by(row: Row, kind: str, spec: GraderSpec | None) -> Prompt:
    """Returns what a row asks, and its right answer as text."""
    item = row.item
    if kind == "supervised":
        answer = item["messages"][-1]
        asked = {**item, "messages": item["messages"][:-1]} if answer["role"] == "assistant" else item
        return prompt_of(row.line, asked, _text(answer) if asked is not item else None)
    if kind == "dpo":
        return prompt_of(row.line, item, "\n".join(map(_text, item["preferred_output"])))
    reference = reference_of(spec, item) if spec is not None else None
    return prompt_of(row.line, item, reference.text if reference else _graded_by(item, spec))


def _text(message: Mapping[str, Any]) -> str:
    calls = message.get("tool_calls")
    return text_of(message.get("content")) + (json.dumps(calls, sort_keys=True) if calls else "")


def _graded_by(item: Mapping[str, Any], spec: GraderSpec | None) -> str | None:
    """Returns what of a row its grade depends on, where the grader's templates tell no reference.

    That is what the templates read, or for a program, which may read anything, what is called an answer.
    """
    paths = [Variable.parse(path) for _, path in item_paths(spec)] if spec is not None else []
    if paths:
        return json.dumps([path.value(NOTHING, item) for path in paths if path.is_in(item)], sort_keys=True)
    named = {key: item[key] for key in ANSWER_KEYS if key in item}
    return json.dumps(named, sort_keys=True) if named else None


def _rows(number: int) -> str:
    return f"{number:,} row{'' if number == 1 else 's'}"
