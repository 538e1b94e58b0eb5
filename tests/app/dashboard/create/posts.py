"""Reads pages as a browser would: the fields of a form, as they would be posted."""

from __future__ import annotations

from html.parser import HTMLParser

from app.dashboard.create.fields import Field


def posted(field: Field) -> list[tuple[str, str]]:
    """What a browser posts of a field and those below it, with its line ends."""
    found = posted(field.key) if field.key else []
    if field.kind == "union":
        found.append((f"{field.name}/?", field.text))
    elif field.kind in ("text", "long", "number", "choice", "json"):
        found.append((field.name, field.text.replace("\n", "\r\n")))
    for part in (*field.parts, *field.more):
        found += posted(part)
    return found


class Form(HTMLParser):
    """The fields of the page's form of a new job, and what stands in them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self._in_form = False
        self._select: str | None = None
        self._options: list[str] = []
        self._area: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._in_form = self._in_form or (tag == "form" and given.get("id") in ("job", "playground"))
        name = given.get("name")
        if not self._in_form:
            return
        if tag == "input" and name and given.get("type") != "file":
            is_off = given.get("type") == "radio" and "checked" not in given
            if not is_off:
                self.fields[name] = given.get("value") or ""
        elif tag == "select":
            self._select, self._options = name, []
        elif tag == "option" and self._select:
            if "selected" in given or self._select not in self.fields:
                self.fields[self._select] = given.get("value") or ""
        elif tag == "textarea":
            self._area = name
            if name:
                self.fields[name] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._in_form = False
        if tag == "select":
            self._select = None
        if tag == "textarea":
            if self._area:
                self.fields[self._area] = self.fields[self._area].removeprefix("\n")
            self._area = None

    def handle_data(self, data: str) -> None:
        if self._area:
            self.fields[self._area] += data
