"""Explains a reward: each score that it is made of, with its weight, what was wanted, and the reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from app.dashboard.samples.turns import Cut, as_json, cut
from app.rollouts.models import Rollout
from app.rollouts.samples import sample_of
from graders import Sample, strict_json
from graders.formula import Formula
from graders.template import Template
from graders.types import GradeFailed, GraderInvalid

MOST_SCORES = 80
LONGEST = 400
"""Characters of a value that are shown beside a score."""
_VERDICT = re.compile(r"\[(met|not met|not answered), ([+-][0-9.e+]+)\] (.*)", re.DOTALL)
_MISSING: Any = object()

Item = Mapping[str, Any]


class Score(NamedTuple):
    """One score of those that a reward is made of.

    Attributes:
        depth: how far it lies below the reward.
        value: None where there is none, because of the failure.
        weight: what it counts, as text; empty where that is not known.
        wanted, given: the value that was asked for and the one that was found; None where none is compared.
    """

    name: str
    depth: int
    value: float | None
    weight: str = ""
    reason: str = ""
    failure: str = ""
    wanted: Cut | None = None
    given: Cut | None = None


class Explanation(NamedTuple):
    """Why a completion has its reward.

    Attributes:
        kind: of the grader.
        formula: of a `multi`; empty for others.
        reason: what the grader said, where the scores do not say it already.
        wanted, given: what a grader of one value has compared; None where that is not known.
    """

    kind: str
    formula: str = ""
    scores: Sequence[Score] = ()
    reason: str = ""
    wanted: Cut | None = None
    given: Cut | None = None
    left: int = 0

    @property
    def has_values(self) -> bool:
        """Whether any score shows what was compared."""
        return any(score.wanted is not None or score.given is not None for score in self.scores)

    @property
    def has_weights(self) -> bool:
        return any(score.weight for score in self.scores)


class _Told(NamedTuple):
    """What is known of one grader's work on one completion: its parts and reason, without its own name."""

    parts: Mapping[str, float]
    reason: str
    sample: Sample
    item: Item | None


def explained(grader: Mapping[str, Any], rollout: Rollout, item: Item | None) -> Explanation:
    """Explains the reward of a completion. `grader` is the job's, and `item` its row, if that is known."""
    told = _Told(rollout.parts, rollout.reason, sample_of(rollout), item)
    kind = str(grader.get("type", ""))
    if kind == "multi":
        scores = list(_of_multi(grader, told, rollout))
        whole = "" if _keys_said(grader, told.reason) else told.reason
        formula = str(grader.get("calculate_output", ""))
        return _bounded(Explanation(kind, formula, scores, whole))
    scores = list(_inside(grader, told, 0))
    wanted, given = (None, None) if scores else _compared(grader, told)
    is_said = any(score.reason for score in scores) and kind == "rubric"
    return _bounded(Explanation(kind, "", scores, "" if is_said else told.reason, wanted, given))


def _bounded(found: Explanation) -> Explanation:
    left = max(0, len(found.scores) - MOST_SCORES)
    return found._replace(scores=found.scores[:MOST_SCORES], left=left)


def _of_multi(grader: Mapping[str, Any], told: _Told, rollout: Rollout) -> Iterator[Score]:
    graders = subgraders(grader)
    said, weights = _keys_said(grader, told.reason), weights_of(grader, told.parts)
    for key, sub in graders.items():
        inner = _Told(_below(told.parts, f"{key}."), said.get(key, ""), told.sample, told.item)
        scores = list(_inside(sub, inner, 1))
        wanted, given = (None, None) if scores else _compared(sub, inner)
        failure = (rollout.part_failures or {}).get(key, {})
        weight = f"{weights[key]:+.3g}" if key in weights else ""
        reason = "" if failure or any(score.reason for score in scores) else inner.reason
        told_failure = f"{failure['kind']}: {failure['message']}" if failure else ""
        yield Score(key, 0, told.parts.get(key), weight, reason, told_failure, wanted, given)
        yield from scores


def _inside(grader: Mapping[str, Any], told: _Told, depth: int) -> Iterator[Score]:
    """Yields the scores that one grader's own is made of."""
    match grader.get("type"):
        case "fields":
            yield from _of_fields(grader, told, depth)
        case "rubric":
            yield from _of_rubric(told, depth)
        case _:
            yield from (Score(name, depth, value) for name, value in told.parts.items())


def _of_fields(grader: Mapping[str, Any], told: _Told, depth: int) -> Iterator[Score]:
    rules, notes = grader.get("fields"), told.reason.split("; ")
    wanted, given = _objects(grader, told)
    order = list(rules) if isinstance(rules, Mapping) else []
    for name in sorted(told.parts, key=lambda part: _place(part.split("."), order)):
        value, steps = told.parts[name], name.split(".")
        above = ".".join(steps[:-1])
        is_share = above in told.parts and steps[-1] in ("precision", "recall")
        yield Score(
            name,
            depth + len(steps) - 1,
            value,
            "" if is_share else _declared_weight(rules, steps),
            "" if is_share else _said_of_field(name, value, notes),
            "",
            None if is_share else _at(wanted, steps),
            None if is_share else _at(given, steps),
        )
    for note in notes:
        if note.startswith("not asked for: "):
            yield Score(
                note, depth, 0.0, "1 each", "Keys that the reference does not have count as wrong fields."
            )


def _place(steps: Sequence[str], order: Sequence[str]) -> tuple[int, Sequence[str]]:
    """Returns where a field is shown: as the grader lists them, since the database keeps no order."""
    return order.index(steps[0]) if steps[0] in order else len(order), steps


def _said_of_field(name: str, value: float, notes: Sequence[str]) -> str:
    if f"{name} is missing" in notes:
        return "is missing"
    if value >= 1:
        return "agrees"
    return "agrees in part" if value > 0 else "differs"


def _declared_weight(rules: object, steps: Sequence[str]) -> str:
    """Returns the weight of a field among those beside it: 1 unless its rule says otherwise."""
    for step in steps[:-1]:
        rule = rules.get(step) if isinstance(rules, Mapping) else None
        rules = rule.get("fields") if isinstance(rule, Mapping) else None
    rule = rules.get(steps[-1]) if isinstance(rules, Mapping) else None
    return f"{rule.get('weight', 1):g}" if isinstance(rule, Mapping) else "1"


def _of_rubric(told: _Told, depth: int) -> Iterator[Score]:
    """Yields the judge's verdicts, as the reason tells them, and then the parts that sum them up."""
    for line in told.reason.splitlines():
        if found := _VERDICT.fullmatch(line):
            met, points, text = found.groups()
            criterion, _, why = text.partition(": ")
            value = None if met == "not answered" else float(met == "met")
            yield Score(criterion, depth, value, points, f"{met}. {why}".rstrip(". ") + ".")
    for name, value in told.parts.items():
        yield Score(name, depth + 1, value)


def weights_of(grader: Mapping[str, Any], parts: Mapping[str, float]) -> dict[str, float]:
    """Returns what each sub-grader moves a `multi`'s value by as it goes from 0 to 1, the others as they are.

    In a weighted sum these are the weights. None are returned where the formula has no value.
    """
    keys = subgraders(grader).keys()
    known = {key: parts[key] for key in keys if key in parts}
    try:
        formula = Formula.parse(str(grader.get("calculate_output", "")), frozenset(keys))
        if len(known) < len(keys):
            return {}
        return {
            key: formula.evaluate({**known, key: 1.0}) - formula.evaluate({**known, key: 0.0}) for key in keys
        }
    except (GraderInvalid, GradeFailed):
        return {}


def subgraders(grader: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Returns the sub-graders of a `multi` by name; `graders` may be one bare grader."""
    found = grader.get("graders")
    if not isinstance(found, Mapping):
        return {}
    return {str(found.get("name")): found} if isinstance(found.get("type"), str) else dict(found)


def _keys_said(grader: Mapping[str, Any], reason: str) -> dict[str, str]:
    """Returns what each sub-grader of a `multi` said, out of the line that holds all, in their order."""
    said: dict[str, str] = {}
    before, rest = "", reason
    for key in subgraders(grader):
        mark = f"{key}: "
        if not before and rest.startswith(mark):
            at, size = 0, len(mark)
        else:
            at, size = rest.find(f" | {mark}"), len(mark) + 3
        if at < 0:
            continue
        if before:
            said[before] = rest[:at]
        before, rest = key, rest[at + size :]
    return said | ({before: rest} if before else {})


def _below(parts: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in parts.items() if name.startswith(prefix)}


def _compared(grader: Mapping[str, Any], told: _Told) -> tuple[Cut | None, Cut | None]:
    """Returns what a grader has held the completion against, and what of it, where it names both."""
    if not isinstance(grader.get("reference"), str) or not isinstance(grader.get("input"), str):
        return None, None
    return tuple(_text(_value(grader, side, told)) for side in ("reference", "input"))  # type: ignore[return-value]


def _objects(grader: Mapping[str, Any], told: _Told) -> tuple[Any, Any]:
    """Returns the two objects that `fields` compares."""
    found = []
    for side in ("reference", "input"):
        value = _value(grader, side, told)
        try:
            value = strict_json.loads(value.strip()) if isinstance(value, str) else value
        except strict_json.StrictJsonError:
            value = _MISSING
        found.append(value)
    return found[0], found[1]


def _value(grader: Mapping[str, Any], side: str, told: _Told) -> Any:
    if told.item is None:
        return _MISSING
    try:
        return Template.parse(str(grader.get(side, ""))).value(told.sample, told.item)
    except (GraderInvalid, GradeFailed):
        return _MISSING


def _at(whole: Any, steps: Iterable[str]) -> Cut | None:
    for step in steps:
        if not isinstance(whole, Mapping) or step not in whole:
            return None
        whole = whole[step]
    return _text(whole)


def _text(value: Any) -> Cut | None:
    if value is _MISSING:
        return None
    return cut(value if isinstance(value, str) else as_json(value), LONGEST)
