"""Renders a card as Markdown: one function of the card alone, in which no text of users is markup."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

_MARKUP = re.compile(r"([\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_]))")
"""What is markup within a line; an underscore between letters is none. No text begins a line."""
_SPACE = re.compile(r"\s+")
MOST_TEXT = 500
"""Characters of one text that are shown; the JSON has all of it."""


def markdown(card: Mapping[str, Any]) -> str:
    """Returns the card for people. The JSON beside it is what programs read, and what is signed."""
    blocks = [
        _head(card),
        _checkpoints(card),
        _made_of(card),
        _guard(card),
        _controls(card),
        _spent(card),
        _curve(card),
        _config(card),
        _attempts(card),
    ]
    return "\n\n".join("\n".join(lines) for block in blocks if (lines := list(block))) + "\n"


def plain(value: Any) -> str:
    """Returns a value as text that Markdown and HTML take for nothing else."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = _SPACE.sub(" ", str(value))
    text = text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}…"
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return (
        _MARKUP.sub(r"\\\1", text).replace("://", ":&#47;/").replace("@", "&#64;").replace("www.", "www&#46;")
    )


def _head(card: Mapping[str, Any]) -> Iterator[str]:
    job, delivered = card["job"], card["delivered"]
    yield f"# Run card of {plain(job['id'])}"
    yield ""
    yield f"**{plain(card['verdict']['sentence'])}**"
    yield ""
    yield from _table(
        ("what", "value"),
        [
            ("status", job["status"]),
            ("method", job["method"]),
            ("base model", job["model"]),
            ("tuned model", job["fine_tuned_model"]),
            ("delivered checkpoint", f"step {delivered['step']}" if delivered else None),
            ("seeds", ", ".join(map(str, card["seeds"]))),
            ("created", _when(job["created_at"])),
            ("finished", _when(job["finished_at"])),
            ("card made", f"{_when(card['made_at'])} by {card['made_by']}"),
        ],
    )


def _checkpoints(card: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (
            each["step"],
            _measured(each["valid_reward"], None),
            _measured(each["gain"], each["gain_interval"], signed=True),
            each["p"],
            _measured(each["kl"], each["kl_interval"]),
            each["basis"],
            "delivered" if each["delivered"] else "kept" if each["kept"] else "files dropped",
        )
        for each in card["checkpoints"]
    ]
    if rows:
        yield "## Checkpoints"
        yield ""
        yield (
            'KL is in nats per token, with its 95 % interval. Where there is a p, of "no better than the'
            ' base", it is adjusted for all looks, as is each bound of the reward over the base, which'
            " holds with 95 %."
        )
        yield ""
        yield from _table(("step", "reward", "over the base", "p", "KL to the base", "rows", "files"), rows)


def _made_of(card: Mapping[str, Any]) -> Iterator[str]:
    yield "## Made of"
    yield ""
    rows = [
        (name.replace("_", " "), file["name"], file["rows"], file["sha256"], file["rows_sha256"])
        for name, file in card["data"].items()
    ]
    if rows:
        yield from _table(("file", "name", "rows", "sha256 of the bytes", "sha256 of the rows"), rows)
        yield ""
    base, grader = card["base_model"], card["grader"]
    others = []
    if base:
        others.append(("base model", base["name"], base["sha256"]))
    if grader:
        others.append(
            ("grader", f"{grader['spec'].get('name')} ({grader['spec']['type']})", grader["sha256"])
        )
    if others:
        yield from _table(("part", "name", "sha256"), others)
    if card["delivered"]:
        yield ""
        yield f"Files of the delivered checkpoint, of step {plain(card['delivered']['step'])}:"
        yield ""
        yield from _table(("file", "sha256"), sorted(card["delivered"]["files"].items()))


def _guard(card: Mapping[str, Any]) -> Iterator[str]:
    guard = card["guard"]
    if guard["mode"] is None and not guard["actions"]:
        return
    yield "## Guard"
    yield ""
    yield f"Mode: {plain(guard['mode'])}. Actions: {len(guard['actions'])}."
    for action in guard["actions"]:
        yield f"- Event {plain(action['event'])}: {plain(action['said'])}"


def _controls(card: Mapping[str, Any]) -> Iterator[str]:
    if card["controls"]:
        yield "## Controls"
        yield ""
        columns = sorted({name for each in card["controls"] for name in each})
        yield from _table(columns, [[each.get(name) for name in columns] for each in card["controls"]])


def _spent(card: Mapping[str, Any]) -> Iterator[str]:
    yield "## Spent"
    yield ""
    spent = list(_flat(card["usage"]))
    limits = [(f"limit: {name}", value) for name, value in card["budgets"].items() if value is not None]
    yield from _table(("what", "value"), [*spent, *limits])


def _curve(card: Mapping[str, Any]) -> Iterator[str]:
    curves = card["curves"]
    if not curves["rows"]:
        return
    first, last = curves["rows"][0], curves["rows"][-1]
    yield "## Curves"
    yield ""
    yield f"{plain(curves['steps'])} steps, of which the JSON has {len(curves['rows'])} rows. First and last:"
    yield ""
    yield from _table(("number", "first", "last"), list(zip(curves["columns"], first, last, strict=True)))


def _config(card: Mapping[str, Any]) -> Iterator[str]:
    if card["config"]:
        yield "## Resolved configuration"
        yield ""
        yield from _table(("name", "value"), list(card["config"].items()))


def _attempts(card: Mapping[str, Any]) -> Iterator[str]:
    for each in card["attempts"]:
        yield f"## Attempt {plain(each['attempt'])}"
        yield ""
        yield from _table(("what", "value"), [row for row in _flat(each) if row[0] != "attempt"])


def _table(heading: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield f"| {' | '.join(heading)} |"
    yield f"|{'---|' * len(heading)}"
    for row in rows:
        yield f"| {' | '.join(map(plain, row))} |"


def _flat(value: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the leaves of a mapping with their paths."""
    for name, each in value.items():
        if isinstance(each, Mapping):
            yield from _flat(each, f"{above}{name} ")
        else:
            yield f"{above}{name}", each


def _measured(
    mean: float | None, interval: Sequence[float | None] | None, *, signed: bool = False
) -> str | None:
    if mean is None:
        return None
    shown = f"{mean:+.4f}" if signed else f"{mean:.4f}"
    if not interval or interval[0] is None or interval[1] is None:
        return shown
    return f"{shown} ({interval[0]:.4f} to {interval[1]:.4f})"


def _when(moment: int | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
