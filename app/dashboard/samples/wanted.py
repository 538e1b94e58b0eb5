"""Reads, out of an address, which completions a page shows, and writes addresses of others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args
from urllib.parse import urlencode

from app.pagination import MAX_NUMBER
from app.rollouts.service import Split
from graders import FailureKind

Sort = Literal["line", "best", "worst", "longest", "shortest"]
SORTS: dict[Sort, str] = {
    "line": "line of the file",
    "best": "reward, best first",
    "worst": "reward, worst first",
    "longest": "length, longest first",
    "shortest": "length, shortest first",
}
SPLITS: dict[Split, str] = {
    "train": "training",
    "valid": "validation",
    "fresh": "training rows, sampled afresh",
    "greedy": "greedy",
    "control": "control",
}
ANY, NONE = "any", "none"
"""Failures: only completions that have one, of whatever kind, and only those that have none."""
LONGEST_SEARCH = 200


class Wanted(NamedTuple):
    """Which completions of a job are shown.

    Attributes:
        step: None for the newest.
        line: of the file, from 1; None for all.
        low, high: what rewards lie between, both ends included.
        failure: a kind, or `ANY` or `NONE`; empty for all.
        search: what the text holds, whatever the case.
        after: the id of the completion behind which the page begins.
        problems: what of the address could not be understood, as sentences. That is left out.
    """

    split: Split = "train"
    step: int | None = None
    line: int | None = None
    low: float | None = None
    high: float | None = None
    failure: str = ""
    is_cut: bool = False
    search: str = ""
    sort: Sort = "line"
    after: str = ""
    problems: tuple[str, ...] = ()

    @classmethod
    def read(cls, given: Mapping[str, str]) -> Wanted:
        """Reads the parameters of an address. What is wrong with them is said in `problems`."""
        problems: list[str] = []
        split, sort, failure = given.get("split", ""), given.get("sort", ""), given.get("failure", "")
        low, high = (_reward(given, name, problems) for name in ("low", "high"))
        if None not in (low, high) and low > high:  # type: ignore[operator]
            problems.append("The lowest reward is larger than the highest one.")
        search = given.get("search", "").strip()
        if len(search) > LONGEST_SEARCH:
            problems.append(f"The text to search for was cut at {LONGEST_SEARCH} characters.")
        return cls(
            split if split in SPLITS else "train",
            _whole(given, "step", problems),
            _whole(given, "line", problems, least=1),
            low,
            high,
            failure if failure in (ANY, NONE, *FailureKind) else "",
            given.get("cut") == "1",
            search[:LONGEST_SEARCH],
            sort if sort in get_args(Sort) else "line",  # type: ignore[arg-type]
            given.get("after", "")[:64],
            tuple(problems),
        )

    @property
    def is_filtered(self) -> bool:
        """Whether some of a step's completions may be left out."""
        return bool(self.filters)

    @property
    def filters(self) -> dict[str, str]:
        """Returns what completions must be to be shown, as parameters."""
        numbers = {"line": self.line, "low": self.low, "high": self.high}
        texts = {"failure": self.failure, "cut": "1" if self.is_cut else "", "search": self.search}
        return {name: f"{value:g}" for name, value in numbers.items() if value is not None} | {
            name: value for name, value in texts.items() if value
        }

    def link(self, **changes: object) -> str:
        """Returns the query of an address that shows the same but for some changes, on its first page."""
        other = self._replace(after="", **changes)  # type: ignore[arg-type]
        named = {"split": other.split, "step": other.step, "sort": other.sort, "after": other.after}
        left_out = {"step": None, "sort": "line", "after": ""}
        shown = {name: value for name, value in named.items() if left_out.get(name, "-") != value}
        return "?" + urlencode(shown | other.filters)

    def following(self, after: str) -> str:
        """Returns the query of the page behind a completion."""
        return f"{self.link()}&{urlencode({'after': after})}"


def _whole(given: Mapping[str, str], name: str, problems: list[str], least: int = 0) -> int | None:
    text = given.get(name, "").strip()
    if not text:
        return None
    if text.isascii() and text.isdecimal() and len(text) <= 10 and least <= int(text) <= MAX_NUMBER:
        return int(text)
    problems.append(f"The {name} must be a whole number from {least} on.")
    return None


def _reward(given: Mapping[str, str], name: str, problems: list[str]) -> float | None:
    text = given.get(name, "").strip()
    try:
        number = float(text) if text else None
    except ValueError:
        number = math.nan
    if number is None or math.isfinite(number):
        return number
    problems.append(f"The {'lowest' if name == 'low' else 'highest'} reward must be a number.")
    return None
