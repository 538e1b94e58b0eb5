"""docs/errors.md: one table in the order of statuses, which holds what the service answers."""

from __future__ import annotations

from pathlib import Path

from app import errors
from app.errors import ApiError

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text("utf-8")


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_statuses_rise_and_no_row_stands_twice() -> None:
    statuses = [int(row[0]) for row in rows()]
    assert statuses == sorted(statuses)
    told = [(row[0], *row[2:]) for row in rows()]
    assert len(set(told)) == len(told)
    plain = [row for row in rows() if row[0] == "401" and "invalid_api_key" in row[2]]
    assert len(plain) == 1


def test_every_kind_of_error_has_a_row() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ApiError)]
    told = {(row[0], f"`{code}`") for row in rows() for code in row[2].replace("`", "").split(", ")}
    assert kinds
    for kind in kinds:
        assert (str(kind.status), f"`{kind.code or 'null'}`") in told, kind


def test_no_sentence_is_left_of_another_page() -> None:
    """A merge once left the end of one paragraph below another."""
    paragraphs = [part for part in PAGE.split("\n\n") if not part.startswith(("|", "#", "```"))]
    assert all(part.strip()[0].isupper() or part.strip()[0] == "`" for part in paragraphs)
    assert PAGE.count("hold the same weights") == 1
