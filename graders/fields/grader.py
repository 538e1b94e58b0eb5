"""Grades `fields`: compares a structured answer with a reference, field by field. An extension of ours.

The value is the weighted mean over the fields of the reference; a missing field scores 0, and (unless
`extra_keys` is "ignore") each key that is not asked for counts as one more field, of weight 1 and score 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graders import strict_json
from graders.fields.compare import canonical_json, scalar_score, unusable
from graders.fields.matching import Overlap, overlap
from graders.fields.pairing import paired
from graders.fields.spec import (
    BooleanRule,
    CollectionRule,
    DateRule,
    FieldRule,
    FieldsSpec,
    FuzzyRule,
    NumberRule,
    ObjectRule,
    ScalarRule,
    TextRule,
)
from graders.grading import Score, grade_by
from graders.template import Template
from graders.types import FailureKind, Grade, GradeFailed, Sample

MAX_NOTES = 8
"""Differences that the reason names."""

_MISSING: Any = object()
_EXACT = TextRule(compare="exact")
_NORMALIZED = TextRule(compare="normalized")
_NUMBER = NumberRule(compare="number")
_SET = CollectionRule(compare="set")
_OBJECT = ObjectRule(compare="object")
_SET_OF_OBJECTS = CollectionRule(compare="set", items=ObjectRule(compare="object"))
_BY_NAME: dict[str, ScalarRule] = {
    "exact": _EXACT,
    "normalized": _NORMALIZED,
    "boolean": BooleanRule(compare="boolean"),
    "number": _NUMBER,
    "date": DateRule(compare="date"),
    "fuzzy": FuzzyRule(compare="fuzzy"),
}


@dataclass(frozen=True)
class Fields:
    """Grades a structured answer field by field: a built `fields` grader."""

    name: str
    input: Template
    reference: Template
    fields: Mapping[str, FieldRule] | None
    penalize_extra_keys: bool
    type: str = "fields"

    @classmethod
    def build(cls, spec: FieldsSpec) -> Fields:
        """Builds the grader that a spec describes."""
        return cls(
            spec.name,
            Template.parse(spec.input),
            Template.parse(spec.reference),
            spec.fields,
            spec.extra_keys == "penalize",
        )

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        return grade_by(self._score, sample, item)

    def _score(self, sample: Sample, item: Mapping[str, Any]) -> Score:
        reference = _object_from(self.reference, sample, item, "reference")
        if self.fields and reference and not reference.keys() & self.fields.keys():
            raise GradeFailed(FailureKind.INVALID_VARIABLE, "The reference has none of the grader's fields.")
        answer = _object_from(self.input, sample, item, "input")
        comparison = _Comparison(self.penalize_extra_keys)
        value = comparison.objects(self.fields, answer, reference, "")
        return Score(value, comparison.parts, reason=comparison.reason())


@dataclass
class _Comparison:
    """Keeps one comparison under way: the scores by field, and notes on what differs."""

    penalize_extra_keys: bool
    parts: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def objects(
        self,
        rules: Mapping[str, FieldRule] | None,
        answer: Mapping[str, Any],
        reference: Mapping[str, Any],
        at: str,
    ) -> float:
        """Returns the weighted mean over the fields that the reference has; 1 if it has none."""
        if rules is None:
            rules = {key: inferred_rule(value) for key, value in reference.items()}
        total = weights = 0.0
        for key, rule in rules.items():
            if key in reference:
                total += rule.weight * self.field(rule, answer.get(key, _MISSING), reference[key], at + key)
                weights += rule.weight
        extra = [
            key for key in answer if key not in reference and (key not in rules or answer[key] is not None)
        ]
        if extra and self.penalize_extra_keys:
            weights += len(extra)
            self.notes.append("not asked for: " + ", ".join(at + key[:40] for key in extra[:3]))
        return total / weights if weights else 1.0

    def field(self, rule: FieldRule, answer: Any, reference: Any, at: str) -> float:
        """Returns one field's score, 0 to 1, and notes it under the field's name."""
        if reference is None:
            score = float(answer is None)
        elif isinstance(rule, ObjectRule):
            score = self._nested(rule, answer, reference, at)
        elif isinstance(rule, CollectionRule):
            score = self._collection(rule, answer, reference, at)
        elif answer is _MISSING:
            score = 0.0
        else:
            score = scalar_score(rule, answer, reference, at)
        self.parts[at] = score
        if answer is _MISSING:
            self.notes.append(f"{at} is missing")
        elif score < 1 and not (isinstance(rule, ObjectRule) and isinstance(answer, dict)):
            self.notes.append(f"{at} differs" + (f" ({score:.2f})" if score else ""))
        return score

    def _nested(self, rule: ObjectRule, answer: Any, reference: Any, at: str) -> float:
        if not isinstance(reference, dict):
            raise unusable(at, reference, "an object")
        if isinstance(answer, dict):
            return self.objects(rule.fields, answer, reference, f"{at}.")
        below = _Comparison(
            self.penalize_extra_keys, self.parts
        )  # its curves get their zeros, the notes none
        below.objects(rule.fields, {}, reference, f"{at}.")
        return 0.0

    def _collection(self, rule: CollectionRule, answer: Any, reference: Any, at: str) -> float:
        if not isinstance(reference, list):
            raise unusable(at, reference, "an array")
        items = _BY_NAME[rule.items] if isinstance(rule.items, str) else rule.items
        given = answer if isinstance(answer, list) else []
        if isinstance(items, ObjectRule | CollectionRule):
            found = self._pairs(rule, items, given, reference, at)
        else:
            found = overlap(rule.compare, items, given, reference, at)
        found = found._replace(extra=rule.extra_items)
        scores = {"precision": found.precision, "recall": found.recall, "f1": found.f1}
        if not isinstance(answer, list):
            scores = dict.fromkeys(scores, 0.0)
        self.parts[f"{at}.precision"] = scores["precision"]
        self.parts[f"{at}.recall"] = scores["recall"]
        return scores[rule.score]

    def _pairs(
        self,
        rule: CollectionRule,
        items: ObjectRule | CollectionRule,
        given: list[Any],
        reference: list[Any],
        at: str,
    ) -> Overlap:
        """Pairs items that have fields themselves, so that they agree best.

        Each of their fields becomes a part: the F1 of that field over all items.
        """
        wanted = list({canonical_json(item): item for item in reference}.values())
        wanted = wanted if rule.compare == "set" else reference
        if isinstance(items, ObjectRule) and items.fields is None:
            items = ObjectRule(compare="object", fields=_inferred_fields(wanted))
        compared: dict[tuple[int, int], _Comparison] = {}

        def score(i: int, j: int) -> float:
            below = compared[i, j] = _Comparison(self.penalize_extra_keys)
            return below.item(items, given[i], wanted[j], f"{at}[{j}]")

        for j, item in enumerate(wanted):  # a reference that cannot be used is told whatever the answer is
            _Comparison(self.penalize_extra_keys).item(items, item, item, f"{at}[{j}]")
        pairs = paired(rule.compare, score, given, wanted)
        for pair in pairs:
            if (pair.given, pair.wanted) not in compared:
                score(pair.given, pair.wanted)
        self._field_parts(
            items, [compared[one.given, one.wanted] for one in pairs], len(given), len(wanted), at
        )
        repeats = len(reference) - len(wanted)
        n_given = len(given) - min(repeats, max(0, len(given) - len(wanted)))
        return Overlap(sum(pair.score for pair in pairs), n_given, len(wanted))

    def _field_parts(
        self,
        items: ObjectRule | CollectionRule,
        compared: Sequence[_Comparison],
        n_given: int,
        n_wanted: int,
        at: str,
    ) -> None:
        names = items.fields or {} if isinstance(items, ObjectRule) else {}
        for name in names:
            total = sum(one.parts.get(name, 0.0) for one in compared)
            both = n_given + n_wanted
            self.parts[f"{at}.{name}"] = min(1.0, 2 * total / both) if both else 1.0

    def item(self, rule: ObjectRule | CollectionRule, answer: Any, reference: Any, at: str) -> float:
        """Returns the score of one item of a list by its rule.

        Its fields' scores are parts under their own names.
        """
        if isinstance(rule, CollectionRule):
            return self._collection(rule, answer, reference, at)
        if not isinstance(reference, dict):
            raise unusable(at, reference, "an object")
        return self.objects(rule.fields, answer, reference, "") if isinstance(answer, dict) else 0.0

    def reason(self) -> str:
        """Returns what differs, in one line for a person."""
        if not self.notes:
            return "all fields agree"
        more = len(self.notes) - MAX_NOTES
        return "; ".join(self.notes[:MAX_NOTES]) + (f"; and {more} more" if more > 0 else "")


def _inferred_fields(items: Sequence[Any]) -> dict[str, FieldRule] | None:
    """Returns a rule for each key that an object of the list has.

    Values of several kinds are compared as text.
    """
    values: dict[str, list[Any]] = {}
    for item in items:
        for key, value in item.items() if isinstance(item, dict) else ():
            values.setdefault(key, []).append(value)
    return {key: _common_rule(each) for key, each in values.items()} or None


def _common_rule(values: Sequence[Any]) -> FieldRule:
    told = [value for value in values if value is not None] or values
    if all(isinstance(value, list) for value in told):
        told = [value for value in told if value] or told  # an empty list goes with lists of any items
    first, *others = (inferred_rule(value) for value in told)
    return first if all(rule == first for rule in others) else _NORMALIZED


def inferred_rule(reference: Any) -> FieldRule:
    """Returns the rule for a field that the grader does not declare, by the type of its reference."""
    match reference:
        case str():
            return _NORMALIZED
        case bool() | None:
            return _EXACT
        case int() | float():
            return _NUMBER
        case [dict(), *rest] if all(isinstance(one, dict) for one in rest):
            return _SET_OF_OBJECTS
        case list():
            return _SET
        case _:
            return _OBJECT


def _object_from(template: Template, sample: Sample, item: Mapping[str, Any], side: str) -> dict[str, Any]:
    """Returns the object a template stands for: a variable's own value, or text parsed as strict JSON.

    Raises `GradeFailed`: sample_parse_error if the completion has a part in it, else invalid_variable_error.
    """
    value = template.value(sample, item)
    problem = "is not a JSON object"
    if isinstance(value, str):
        try:
            value = strict_json.loads(value.strip())
        except strict_json.StrictJsonError as error:
            problem = f"is not JSON: {error}"
    if isinstance(value, dict):
        return value
    kind = FailureKind.SAMPLE_PARSE if template.reads_sample else FailureKind.INVALID_VARIABLE
    what = "output" if template.reads_sample else side
    raise GradeFailed(kind, f"The {what} {problem}.")
