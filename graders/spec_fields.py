"""The wire format of `fields`: a rule for each field of a structured answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from graders.spec_base import ComparingSpec, SpecModel, invalid, refuse

MAX_FIELDS = 256
"""Declared fields in one object of a `fields` grader."""


class _Rule(SpecModel):
    weight: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    """Share of this field in the mean; 0 measures the field without rewarding it."""


class TextRule(_Rule):
    """Equal as JSON values (`exact`), or equal after folding case, white space and punctuation."""

    compare: Literal["exact", "normalized"]


class NumberRule(_Rule):
    """Equal within max(abs_tolerance, rel_tolerance * |reference|)."""

    compare: Literal["number"]
    abs_tolerance: Annotated[float, Field(ge=0)] = 0.0
    rel_tolerance: Annotated[float, Field(ge=0, le=1)] = 0.0


class DateRule(_Rule):
    """The same day. Without `day_first`, dates such as 05/03/2024 are ambiguous and not read."""

    compare: Literal["date"]
    day_first: bool | None = None


class FuzzyRule(_Rule):
    """rapidfuzz ratio of the normalised texts, 0 to 1; below `threshold` it is 0."""

    compare: Literal["fuzzy"]
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0


ScalarRule = TextRule | NumberRule | DateRule | FuzzyRule
ScalarName = Literal["exact", "normalized", "number", "date", "fuzzy"]


def _check_item_rule(rule: ScalarRule) -> ScalarRule:
    if "weight" in rule.model_fields_set:
        refuse(lambda: invalid("an item has no weight of its own; give it to the field."), "weight")
    return rule


ItemRule = Annotated[
    Annotated[ScalarName, Tag("by_name")]
    | Annotated[ScalarRule, Field(discriminator="compare"), AfterValidator(_check_item_rule), Tag("by_rule")],
    Discriminator(lambda value: "by_name" if isinstance(value, str) else "by_rule"),
]


class CollectionRule(_Rule):
    """F1 of two lists: order and repeats ignored (`set`), repeats counted (`multiset`), or both (`list`)."""

    compare: Literal["set", "multiset", "list"]
    items: ItemRule = "normalized"


class ObjectRule(_Rule):
    """A nested object; its fields are inferred from the reference when left out."""

    compare: Literal["object"]
    fields: FieldRules | None = None


FieldRule = Annotated[ScalarRule | CollectionRule | ObjectRule, Field(discriminator="compare")]
FieldRules = Annotated[dict[str, FieldRule], Field(min_length=1, max_length=MAX_FIELDS)]


class FieldsSpec(ComparingSpec):
    """An extension: compares a structured answer with a reference, field by field."""

    type: Literal["fields"]
    fields: FieldRules | None = None
    extra_keys: Literal["penalize", "ignore"] = "penalize"
    pass_threshold: float | None = None

    @model_validator(mode="after")
    def _some_field_counts(self) -> FieldsSpec:
        if self.fields and not any(rule.weight for rule in self.fields.values()):
            refuse(lambda: invalid("At least one field needs a weight above 0."), "fields")
        return self
