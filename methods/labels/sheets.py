"""Writes a sheet for people to score answers on: blind to the grader's scores, shuffled, and safe to open."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from methods.labels.reading import ANSWER, ID, SCORE, rows_beside
from methods.messages import text_of

COLUMNS = (ID, "prompt", ANSWER, SCORE)
BINS = 10
"""Parts of the span of scores from which a sheet takes answers in turn. Chosen, not measured."""
ID_BYTES = 5
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula (OWASP, CSV injection): such a text gets a blank
before it, since a model may have written anything. The answer is read back from the rows beside the sheet."""


class Entry(NamedTuple):
    """Holds an answer to a row, with the score that a grader gave it, which nobody is shown."""

    item: Mapping[str, Any]
    answer: str
    score: float | None = None

    @property
    def id(self) -> str:
        """Returns what the answer is known by: it follows from both, and tells of neither."""
        text = json.dumps([self.item, self.answer], sort_keys=True, default=str)
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=ID_BYTES).hexdigest()


def chosen(entries: Sequence[Entry], n: int, seed: int) -> list[Entry]:
    """Returns at most `n` different answers in a random order, spread over the scores where there are any.

    One answer is taken from each tenth of the span of scores in turn, so that rare scores are there too.
    """
    luck = random.Random(seed)
    different = list({entry.id: entry for entry in entries}.values())
    luck.shuffle(different)
    bins: dict[int, list[Entry]] = defaultdict(list)
    scores = [entry.score for entry in different if entry.score is not None]
    low, span = min(scores, default=0.0), max(scores, default=0.0) - min(scores, default=0.0)
    for entry in different:
        place = -1 if entry.score is None else int((entry.score - low) / (span or 1.0) * BINS)
        bins[min(place, BINS - 1)].append(entry)
    taken: list[Entry] = []
    while len(taken) < n and any(bins.values()):
        for left in bins.values():
            if left and len(taken) < n:
                taken.append(left.pop())
    luck.shuffle(taken)
    return taken


def write_sheet(path: Path, entries: Sequence[Entry]) -> None:
    """Writes a sheet to fill in, and the rows beside it that reading it back needs. Raises `OSError`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for entry in entries:
        writer.writerow([entry.id, _safe(prompt_of(entry.item)), _safe(entry.answer), ""])
    path.write_text(text.getvalue(), "utf-8-sig", "replace", newline="")  # with a mark, or spreadsheets guess
    rows = ({ID: entry.id, "item": dict(entry.item), ANSWER: entry.answer} for entry in entries)
    rows_beside(path).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def prompt_of(item: Mapping[str, Any]) -> str:
    """Returns what an answer answers, as a person reads it: the row's messages, its `prompt`, or else the
    row itself."""
    messages = item.get("messages", item.get("prompt"))
    if isinstance(messages, str):
        return messages
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return json.dumps(dict(item), ensure_ascii=False)
    if len(messages) == 1:
        return text_of(messages[0].get("content"))
    return "\n\n".join(f"{message.get('role')}: {text_of(message.get('content'))}" for message in messages)


def _safe(text: str) -> str:
    return f" {text}" if text.startswith(FORMULA) else text
