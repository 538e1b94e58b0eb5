"""Holds the schema of an eval's items to what a run can apply: a JSON schema that is all there is to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

REF = "$ref"
ONE, SEVERAL, NAMED = ("not", "if", "then", "else"), ("allOf", "anyOf", "oneOf"), "dependentSchemas"
"""Keywords that apply schemas to the same value as the one they are in: one, a list of them, or by name."""
SHOWN = 300
"""Characters of a fault that are told. Chosen, not measured."""


def fault_of(schema: Mapping[str, Any]) -> str | None:
    """Returns why a schema cannot be applied to items; None where it can."""
    try:
        Draft202012Validator.check_schema(schema)
        targets = {id(node): list(_applied(node, resolver)) for node, resolver in _schemas(schema)}
        return "its recursion never ends" if _never_ends(targets) else None
    except SchemaError as fault:
        return f"it is no JSON schema: {fault.message[:SHOWN]} ({fault.json_path})"
    except Unresolvable as fault:
        pointer = "#" if str(fault.ref).startswith("/") else ""
        return f"'{pointer}{str(fault.ref)[:SHOWN]}' refers to nothing in it, and nothing else is read"
    except RecursionError:
        return "it is nested too deeply"


def _schemas(schema: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Yields each schema within a schema, with what resolves its references."""
    whole = DRAFT202012.create_resource(schema)
    waiting = [(whole, Registry().with_resource("", whole).resolver())]
    while waiting:
        resource, resolver = waiting.pop()
        yield resource.contents, resolver
        waiting += [(inner, resolver.in_subresource(inner)) for inner in resource.subresources()]


def _applied(node: Any, resolver: Any) -> Iterator[int]:
    """Yields the schemas that are applied to the same value, each by its identity. Raises `Unresolvable`."""
    if not isinstance(node, dict):
        return
    if REF in node:
        yield id(resolver.lookup(node[REF]).contents)
    yield from (id(node[keyword]) for keyword in ONE if keyword in node)
    yield from (id(each) for keyword in SEVERAL for each in node.get(keyword, ()))
    yield from (id(each) for each in node.get(NAMED, {}).values())


def _never_ends(targets: Mapping[int, list[int]]) -> bool:
    """Tells whether some schema comes to itself again without a step into the value."""
    left = {node: len(after) for node, after in targets.items()}
    before: dict[int, list[int]] = {node: [] for node in targets}
    for node, after in targets.items():
        for each in after:
            before.setdefault(each, []).append(node)
    done = [node for node in before if not left.get(node)]
    n_done = 0
    while done:
        n_done += 1
        for node in before[done.pop()]:
            left[node] -= 1
            if not left[node]:
                done.append(node)
    return n_done < len(before)
