"""Finds declared fields of a `fields` grader that no row asks for: often a name is misspelt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from graders import strict_json
from graders.fields.spec import CollectionRule, FieldRules, FieldsSpec, ObjectRule
from graders.spec import GraderSpec, MultiSpec
from graders.template import Template
from graders.types import GradeFailed, Sample

_NOTHING = Sample("")


def unasked_fields(spec: GraderSpec, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns paths of declared fields that the reference of no row has, such as `graders.a.fields.city`.

    Rows whose reference cannot be read are passed over; if there is no other, the list is empty.
    """
    named = spec.subgraders if isinstance(spec, MultiSpec) else {"": spec}
    found: list[str] = []
    for key, part in named.items():
        if isinstance(part, FieldsSpec) and part.fields:
            references = [value for row in rows if (value := _reference(part, row)) is not None]
            at = f"graders.{key}.fields" if key else "fields"
            found += _unasked(part.fields, references, at) if references else ()
    return found


def _unasked(rules: FieldRules, references: Sequence[Mapping[str, Any]], at: str) -> Iterator[str]:
    for name, rule in rules.items():
        values = [reference[name] for reference in references if name in reference]
        if not values:
            yield f"{at}.{name}"
            continue
        if isinstance(rule, CollectionRule) and not isinstance(rule.items, str):
            values = [item for value in values if isinstance(value, list) for item in value]
            rule = rule.items  # looked into in its field's place
        objects = [value for value in values if isinstance(value, dict)]
        if isinstance(rule, ObjectRule) and rule.fields and objects:
            yield from _unasked(rule.fields, objects, f"{at}.{name}")


def _reference(spec: FieldsSpec, row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    template = Template.parse(spec.reference)
    if template.reads_sample:
        return None
    try:
        value = template.value(_NOTHING, row)
        value = strict_json.loads(value.strip()) if isinstance(value, str) else value
    except (GradeFailed, strict_json.StrictJsonError):
        return None
    return value if isinstance(value, dict) else None
