"""Schemas of an OpenAPI document in words: a type in a table's cell, and the fields of named objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]


def cell(text: str) -> str:
    """Returns a text that fits a table's cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


class Schemas:
    """The named schemas of a document, and which of them a page has spoken of."""

    def __init__(self, document: Schema) -> None:
        self._named: dict[str, Schema] = document["components"]["schemas"]
        self._spoken: dict[str, None] = {}

    def forget(self) -> None:
        """Begins a new page."""
        self._spoken.clear()

    def fields(self, schema: Schema) -> list[str]:
        """Returns the names of an object's fields, of all its forms together."""
        return list(self._properties(schema))

    def objects(self) -> Iterator[str]:
        """Yields a table of fields for each object that was spoken of, and for those that these speak of."""
        shown: set[str] = set()
        while left := [name for name in self._spoken if name not in shown]:
            name = left[0]
            shown.add(name)
            yield from self._object(name)

    def _object(self, name: str) -> Iterator[str]:
        schema = self._named[name]
        yield from ("", f'<a id="object-{name.lower()}"></a>', "", f"### {name}", "")
        if schema.get("description"):
            yield from (" ".join(schema["description"].split()), "")
        properties = self._properties(schema)
        if not properties:
            yield f"{self._type(schema)}"
            return
        yield from ("| field | type | meaning |", "|---|---|---|")
        required = set(schema.get("required", ()))
        for field, its in properties.items():
            star = " \\*" if field in required else ""
            yield f"| `{field}`{star} | {self.type_of(its)} | {cell(its.get('description', ''))} |"

    def _properties(self, schema: Schema) -> dict[str, Schema]:
        if "$ref" in schema:
            return self._properties(self._named[schema["$ref"].rpartition("/")[2]])
        found = dict(schema.get("properties", {}))
        for form in ("allOf", "anyOf", "oneOf"):
            for each in schema.get(form, ()):
                for name, its in self._properties(each).items():
                    found.setdefault(name, its)
        return found

    def type_of(self, schema: Schema) -> str:
        """Returns a type in words; named objects are links to where the page shows them."""
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            self._spoken.setdefault(name)
            return f"[{name}](#object-{name.lower()})"
        return self._type(schema)

    def _type(self, schema: Schema) -> str:
        for form in ("anyOf", "oneOf", "allOf"):
            if form in schema:
                kinds = dict.fromkeys(self.type_of(each) for each in schema[form])
                return " or ".join(kinds)
        if "const" in schema:
            return f"`{schema['const']}`"
        if "enum" in schema:
            return ", ".join(f"`{value}`" for value in schema["enum"])
        kind = schema.get("type", "anything")
        if kind == "array":
            return f"list of {self.type_of(schema.get('items', {}))}"
        if isinstance(kind, list):
            return " or ".join(kind)
        return str(kind)
