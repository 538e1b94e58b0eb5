"""What an answer is truly worth, from 0 to 1, by a function that the command line names."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable

Worth = Callable[[str, str], float]
"""(answer, all that the judge was sent) -> worth."""


def named_worth(name: str) -> Worth:
    """Returns a function of worth by its name.

    `words:dog,play` is the share of those words that an answer has. `some.module:function` is called with the
    answer and the whole prompt.
    """
    kind, _, rest = name.partition(":")
    if kind == "words":
        wanted = rest.split(",")
        return lambda answer, _: sum(_has(word, answer) for word in wanted) / len(wanted)
    found: Worth = getattr(importlib.import_module(kind), rest)
    return found


def is_met(criterion: str, answer: str) -> bool:
    """Whether an answer has every word that stands in double quotes in a criterion."""
    return all(_has(word, answer) for word in re.findall(r'"([^"]+)"', criterion))


def early_letters(answer: str, _: str) -> float:
    """The story tasks' reward: the share of letters a to m, of at least 20 characters."""
    return sum(letter in "abcdefghijklm" for letter in answer.lower()) / max(len(answer), 20)


def play(answer: str, _: str) -> float:
    """The story tasks' reward for a word: the text has "play"."""
    return float("play" in answer.lower())


def _has(word: str, answer: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", answer, re.IGNORECASE) is not None
