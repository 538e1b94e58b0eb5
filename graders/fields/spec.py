"""Declares the wire format of `fields`: a rule for each field of a structured answer."""

from __future__ import annotations

from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import regex
from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from graders.fields.units import find_unit
from graders.spec_base import ComparingSpec, SpecModel, invalid, refuse

MAX_PATTERN = 200
"""Characters of a regular expression."""

MAX_FIELDS = 256
"""Declared fields in one object of a `fields` grader."""


class _Rule(SpecModel):
    weight: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    """Share of this field in the mean; 0 measures the field without rewarding it."""


Fold = Literal["case", "accents", "punctuation", "whitespace", "articles"]
"""What a comparison of texts may ignore."""


class _FoldingRule(_Rule):
    """Says which differences between two texts do not matter."""

    normalize: Annotated[list[Fold], Field(max_length=5)] | None = None
    """Left out: case, white space and punctuation, with care for signs that mean something."""
    remove: Annotated[str, Field(min_length=1, max_length=MAX_PATTERN)] | None = None
    """A regular expression; what it matches is dropped from both texts."""

    @model_validator(mode="after")
    def _pattern_compiles(self) -> _FoldingRule:
        if self.remove is not None:
            refuse(lambda: _check_pattern(str(self.remove)), "remove")
        return self


def _check_pattern(pattern: str) -> None:
    try:
        regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as fault:
        invalid(f"not a regular expression: {fault}.")


class TextRule(_FoldingRule):
    """Asks for equal JSON values (`exact`), or texts that are equal once case and the like are folded."""

    compare: Literal["exact", "normalized"]

    @model_validator(mode="after")
    def _exact_folds_nothing(self) -> TextRule:
        if self.compare == "exact" and (self.normalize is not None or self.remove is not None):
            param = "normalize" if self.normalize is not None else "remove"
            refuse(lambda: invalid("'exact' ignores nothing; use 'normalized'."), param)
        return self


class BooleanRule(_Rule):
    """Asks for the same truth value: true and false, or text such as yes, no, true, false, on, off."""

    compare: Literal["boolean"]


class NumberRule(_Rule):
    """Asks for a number within max(abs_tolerance, rel_tolerance * |reference|)."""

    compare: Literal["number"]
    abs_tolerance: Annotated[float, Field(ge=0)] = 0.0
    """How far the number may be off."""
    rel_tolerance: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How far it may be off as a share of the reference."""
    unit: Annotated[str, Field(min_length=1, max_length=20)] | None = None
    """Numbers may have a unit of the same quantity, which is converted to this one."""
    currency: Annotated[str, Field(pattern=r"^([A-Z]{3}|any)$")] | None = None
    """Amounts may have the mark of this currency (`any`: of whichever)."""
    decimal: Literal[".", ","] = "."

    @model_validator(mode="after")
    def _unit_is_known(self) -> NumberRule:
        unit = self.unit
        if unit is not None and find_unit(unit) is None:
            refuse(
                lambda: invalid(f"'{unit}' is not a unit that is known; docs/graders.md lists them."), "unit"
            )
        if unit is not None and self.currency is not None:
            refuse(lambda: invalid("a number has a unit or a currency, not both."), "currency")
        return self


class DateRule(_Rule):
    """Asks for the same day, or as far as `precision` says.

    Without `day_first`, dates such as 05/03/2024 are ambiguous and not read.
    """

    compare: Literal["date"]
    day_first: bool | None = None
    formats: (
        Annotated[list[Annotated[str, Field(min_length=2, max_length=40)]], Field(min_length=1, max_length=8)]
        | None
    ) = None
    """Forms in strptime's letters, tried before all others."""
    precision: Literal["year", "month", "day", "minute", "second"] = "day"
    timezone: Annotated[str, Field(min_length=1, max_length=64)] = "UTC"
    """Of times that name no zone; matters to `minute` and `second`."""

    @model_validator(mode="after")
    def _zone_is_known(self) -> DateRule:
        refuse(lambda: _check_zone(self.timezone), "timezone")
        return self


def _check_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (OSError, KeyError, ValueError):
        invalid(f"'{name}' is no time zone, such as Europe/Rome or UTC.")


class FuzzyRule(_FoldingRule):
    """Asks for a similarity of the folded texts (rapidfuzz), 0 to 1; below `threshold` it is 0."""

    compare: Literal["fuzzy"]
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    scorer: Literal["ratio", "token_sort", "token_set", "partial", "jaro_winkler"] = "ratio"


ScalarRule = TextRule | BooleanRule | NumberRule | DateRule | FuzzyRule
ScalarName = Literal["exact", "normalized", "boolean", "number", "date", "fuzzy"]


class CollectionRule(_Rule):
    """Asks for the F1 of two lists.

    Order and repeats are ignored (`set`), repeats are counted (`multiset`), or both count (`list`).
    """

    compare: Literal["set", "multiset", "list"]
    items: ItemRule = "normalized"
    """How two items are compared."""
    extra_items: Annotated[float, Field(ge=0, le=100)] = 1.0
    """What an item that was not asked for costs, where a wanted item counts 1."""
    score: Literal["f1", "precision", "recall"] = "f1"
    """F1 of precision and recall, or one of them."""


class ObjectRule(_Rule):
    """Asks for a nested object; its fields are inferred from the reference when left out."""

    compare: Literal["object"]
    fields: FieldRules | None = None


def _check_item_rule(rule: _Rule) -> _Rule:
    if "weight" in rule.model_fields_set:
        refuse(lambda: invalid("an item has no weight of its own; give it to the field."), "weight")
    return rule


ItemRule = Annotated[
    Annotated[ScalarName, Tag("by_name")]
    | Annotated[
        ScalarRule | CollectionRule | ObjectRule,
        Field(discriminator="compare"),
        AfterValidator(_check_item_rule),
        Tag("by_rule"),
    ],
    Discriminator(lambda value: "by_name" if isinstance(value, str) else "by_rule"),
]

FieldRule = Annotated[ScalarRule | CollectionRule | ObjectRule, Field(discriminator="compare")]
FieldRules = Annotated[dict[str, FieldRule], Field(min_length=1, max_length=MAX_FIELDS)]

CollectionRule.model_rebuild()
ObjectRule.model_rebuild()


class FieldsSpec(ComparingSpec):
    """Compares a structured answer with a reference, field by field: an extension."""

    type: Literal["fields"]
    fields: FieldRules | None = None
    """A rule for each field; left out, the rules follow from the reference."""
    extra_keys: Literal["penalize", "ignore"] = "penalize"
    """Whether keys that the reference has not lower the score."""
    pass_threshold: float | None = None
    """From which value on evals count an answer as passed; it changes no value."""

    @model_validator(mode="after")
    def _some_field_counts(self) -> FieldsSpec:
        if self.fields and not any(rule.weight for rule in self.fields.values()):
            refuse(lambda: invalid("At least one field needs a weight above 0."), "fields")
        return self
