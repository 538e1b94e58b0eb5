"""The wire format of graders: pydantic models, a union told apart by `type`.

`parse_grader` is the front door: it reads what a user sent and answers with OpenAI's error codes. The models
also validate on their own, so a stored spec can be read back as a field of another model.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from graders.formula import NAME, Formula
from graders.spec_errors import from_pydantic, invalid_type, invalid_value, missing
from graders.template import Template, Variable
from graders.types import GraderInvalid

MAX_TEMPLATE = 64 * 1024
"""Longest template, in characters."""

MAX_GRADERS = 64
"""Sub-graders in one `multi`."""

MAX_FIELDS = 256
"""Declared fields in one object of a `fields` grader."""

SUPPORTED = ("string_check", "text_similarity", "multi", "fields")

_JUDGE = "needs a judge model, which this build cannot call yet; use text_similarity or fields instead."
UNSUPPORTED = {
    "python": "Python graders run only inside the sandbox, which this build does not have yet; "
    "use string_check, text_similarity, fields, or a multi of them instead.",
    "score_model": f"A score_model grader {_JUDGE}",
    "label_model": f"A label_model grader {_JUDGE}",
    "endpoint": "An endpoint grader calls another server, which this build does not do; "
    "use string_check, text_similarity, fields, or a multi of them instead.",
}
"""Kinds that OpenAI knows and this build refuses, with the reason."""


def _refuse(check: Callable[[], object], param: str = "") -> None:
    """Run a check, turning its `GraderInvalid` into what pydantic expects. `param` is below the value."""
    try:
        check()
    except GraderInvalid as error:
        raise PydanticCustomError(
            "grader_invalid", "{message}", {"message": error.message, "code": error.code, "param": param}
        ) from None


def _check_template(text: str) -> str:
    _refuse(lambda: Template.parse(text))
    return text


def _check_metric(metric: str) -> str:
    if metric == "cosine":
        reason = "'cosine' compares embeddings, and no embedding model is set; use another metric."
        _refuse(lambda: _invalid(reason, code="unsupported_grader"))
    return metric


TemplateText = Annotated[str, Field(max_length=MAX_TEMPLATE), AfterValidator(_check_template)]
GraderName = Annotated[str, Field(min_length=1, max_length=256)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Named(_Model):
    """A grader with a name; one that is left out is made up from the content, the same every time."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_name(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and "name" not in raw:
            return {**raw, "name": made_up_name(raw)}
        return raw


class StringCheckSpec(_Named):
    """1 or 0 by comparing two strings."""

    type: Literal["string_check"]
    name: GraderName
    input: TemplateText
    reference: TemplateText
    operation: Annotated[
        Literal["eq", "ne", "like", "ilike"], BeforeValidator(lambda value: "ne" if value == "neq" else value)
    ]
    pass_threshold: float | None = None


Metric = Literal[
    "fuzzy_match",
    "bleu",
    "gleu",
    "meteor",
    "rouge_1",
    "rouge_2",
    "rouge_3",
    "rouge_4",
    "rouge_5",
    "rouge_l",
    "cosine",
]


class TextSimilaritySpec(_Named):
    """How alike two texts are, 0 to 1."""

    type: Literal["text_similarity"]
    name: GraderName
    input: TemplateText
    reference: TemplateText
    evaluation_metric: Annotated[Metric, AfterValidator(_check_metric)]
    pass_threshold: float | None = None


class _Rule(_Model):
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
        _refuse(lambda: _invalid("an item has no weight of its own; give it to the field."), "weight")
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


class FieldsSpec(_Named):
    """An extension: compares a structured answer with a reference, field by field."""

    type: Literal["fields"]
    name: GraderName
    input: TemplateText
    reference: TemplateText
    fields: FieldRules | None = None
    extra_keys: Literal["penalize", "ignore"] = "penalize"
    pass_threshold: float | None = None

    @model_validator(mode="after")
    def _some_field_counts(self) -> FieldsSpec:
        if self.fields and not any(rule.weight for rule in self.fields.values()):
            _refuse(lambda: _invalid("At least one field needs a weight above 0."), "fields")
        return self


PartSpec = Annotated[StringCheckSpec | TextSimilaritySpec | FieldsSpec, Field(discriminator="type")]


class MultiSpec(_Named):
    """Several graders and a formula over their values.

    `graders` keeps the form it came in: an object of graders, or (as OpenAI's own types have it) one bare
    grader, which `named` shows as an object of one.
    """

    type: Literal["multi"]
    name: GraderName
    graders: Annotated[dict[str, PartSpec], Field(min_length=1, max_length=MAX_GRADERS)] | PartSpec
    calculate_output: str
    pass_threshold: float | None = None

    @property
    def named(self) -> dict[str, PartSpec]:
        return self.graders if isinstance(self.graders, dict) else {self.graders.name: self.graders}

    @model_validator(mode="after")
    def _formula_fits(self) -> MultiSpec:
        for key in self.named:
            _refuse(lambda key=key: _check_key(key), "graders")  # type: ignore[misc]
        _refuse(lambda: Formula.parse(self.calculate_output, frozenset(self.named)), "calculate_output")
        return self


GraderSpec = Annotated[
    StringCheckSpec | TextSimilaritySpec | FieldsSpec | MultiSpec, Field(discriminator="type")
]

_MODELS: dict[str, type[StringCheckSpec | TextSimilaritySpec | FieldsSpec]] = {
    "string_check": StringCheckSpec,
    "text_similarity": TextSimilaritySpec,
    "fields": FieldsSpec,
}


def parse_grader(raw: Any) -> GraderSpec:
    """Read a grader as it was sent, checking templates and formula too: what this accepts can be built.

    Missing names are filled in. Raises `GraderInvalid` for the first thing wrong.
    """
    if _kind(raw, "") == "multi":
        return _parse_multi(raw)
    return _parse_part(raw, "")


def dump_grader(spec: GraderSpec) -> dict[str, Any]:
    """The spec as it was received, with names filled in (and `neq` read as `ne`)."""
    return spec.model_dump(mode="json", exclude_unset=True)


def item_paths(spec: GraderSpec) -> list[tuple[str, str]]:
    """Every dataset field the grader reads, as (where in the grader, which path), without repeats.

    For example `("graders.city.reference", "item.address.city")`; check rows with `has_path`.
    """
    found = [
        (param, str(variable))
        for param, template in _templates(spec, "")
        for variable in Template.parse(template).variables
        if variable.namespace == "item"
    ]
    return list(dict.fromkeys(found))


def has_path(item: dict[str, Any], path: str) -> bool:
    """Whether a dataset row has a path that `item_paths` named."""
    return Variable.parse(path).is_in(item)


def made_up_name(raw: dict[str, Any]) -> str:
    """`grader-` and 12 letters or digits that depend on the content only."""
    content = json.dumps(
        raw,
        sort_keys=True,
        default=lambda part: part.model_dump() if isinstance(part, BaseModel) else str(part),
    )
    number = int.from_bytes(hashlib.sha256(content.encode("utf-8", "replace")).digest()[:12], "big")
    alphabet = string.digits + string.ascii_letters
    letters = []
    for _ in range(12):
        number, index = divmod(number, len(alphabet))
        letters.append(alphabet[index])
    return "grader-" + "".join(letters)


def _templates(spec: GraderSpec, at: str) -> Iterator[tuple[str, str]]:
    if isinstance(spec, MultiSpec):
        for key, part in spec.named.items():
            below = f"graders.{key}." if isinstance(spec.graders, dict) else "graders."
            yield from _templates(part, below)
    else:
        yield at + "input", spec.input
        yield at + "reference", spec.reference


def _kind(raw: Any, at: str) -> str:
    """The grader's type, if this build has it."""
    if not isinstance(raw, dict):
        raise invalid_type(at, "an object", raw)
    param = f"{at}.type" if at else "type"
    if "type" not in raw:
        raise missing(param)
    kind = raw["type"]
    if not isinstance(kind, str):
        raise invalid_type(param, "a string", kind)
    if kind in UNSUPPORTED:
        raise GraderInvalid(UNSUPPORTED[kind], param=param, code="unsupported_grader")
    if kind not in SUPPORTED:
        raise invalid_value(param, kind, SUPPORTED)
    return kind


def _parse_part(raw: Any, at: str) -> StringCheckSpec | TextSimilaritySpec | FieldsSpec:
    kind = _kind(raw, at)
    if kind == "multi":
        raise GraderInvalid("A multi grader cannot contain another multi grader.", param=f"{at}.type")
    try:
        return _MODELS[kind].model_validate(raw)
    except ValidationError as error:
        raise from_pydantic(error, raw, at) from None


def _parse_multi(raw: dict[str, Any]) -> MultiSpec:
    try:
        return MultiSpec.model_validate({**raw, "graders": _parse_graders(raw)})
    except ValidationError as error:
        raise from_pydantic(error, raw, "") from None


def _parse_graders(raw: dict[str, Any]) -> Any:
    """The value of `graders`, in the form it came in."""
    if "graders" not in raw:
        raise missing("graders")
    graders = raw["graders"]
    if not isinstance(graders, dict):
        raise invalid_type("graders", "an object", graders)
    if isinstance(graders.get("type"), str):
        if "name" not in graders:
            raise missing("graders.name")
        return _parse_part(graders, "graders")
    if not 1 <= len(graders) <= MAX_GRADERS:
        raise GraderInvalid(
            f"Invalid value for 'graders': expected 1 to {MAX_GRADERS} graders, but got {len(graders)}.",
            param="graders",
        )
    for key in graders:
        _check_key(key)
    return {key: _parse_part(part, f"graders.{key}") for key, part in graders.items()}


def _check_key(key: str) -> None:
    if not NAME.fullmatch(key):
        raise GraderInvalid(
            f"Invalid name '{key[:60]}' in 'graders': the formula can only use letters, digits and "
            "underscores, starting with no digit.",
            param="graders",
        )


def _invalid(message: str, *, code: str = "invalid_value") -> None:
    raise GraderInvalid(message, code=code)
