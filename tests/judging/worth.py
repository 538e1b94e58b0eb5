"""What an answer is truly worth, from 0 to 1, by a function that the command line names."""

from __future__ import annotations

import importlib
import json
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


def right_fields(answer: str, prompt: str) -> float:
    """The share of the fields behind "Right is:" in the prompt that an answer in JSON has alike."""
    found = re.search(r"Right is: (\{.*\})", prompt)
    if found is None:
        return 0.0
    try:
        wanted, given = json.loads(found[1]), json.loads(answer)
    except ValueError:
        return 0.0
    if not isinstance(given, dict):
        return 0.0
    right = sum(given.get(key) == value for key, value in wanted.items())
    return float(right / len(wanted))


def _has(word: str, answer: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", answer, re.IGNORECASE) is not None
