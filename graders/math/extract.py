"""Finds where in a text its mathematical answer stands. Each search takes linear time."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence

from graders.spec_base import Extractor

MAX_ANSWER = 2_000
"""Characters of one answer; a longer one is none."""

MAX_OPEN = 8
"""Boxes that are not closed, from the end, that are passed over."""

NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![\w.])[-+]?\.[0-9]+"
)

_ANSWER_IS = re.compile(r"(?:final answer|the answer|answer)(?: is|:)[ \t:]*", re.IGNORECASE)
_HOPE = re.compile(r"\.? *I hope it is correct\.?", re.IGNORECASE)
_THOUSANDS = re.compile(r"(?<=[0-9])(?:\\[,!]|\{,\})(?=[0-9]{3}(?![0-9]))")
_SPACING = re.compile(r"\\[,;:! ]|~")


def answers(text: str, extractors: Sequence[Extractor]) -> Iterator[str]:
    """Yields the answer that each extractor finds, best first; those that find none are left out."""
    for extractor in extractors:
        found = _find(extractor, text)
        if found is not None and (plain := tidy(found)) and len(plain) <= MAX_ANSWER:
            yield plain


def tidy(answer: str) -> str:
    """Returns an answer without what stands around it: white space, dollar signs, a full stop at the end."""
    plain = _THOUSANDS.sub(",", answer)
    plain = " ".join(_SPACING.sub(" ", plain).split())
    plain = plain.rstrip(".").strip() if not plain.endswith("..") else plain
    for opening, closing in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if plain.startswith(opening) and plain.endswith(closing) and len(plain) > len(opening) + len(closing):
            plain = plain[len(opening) : -len(closing)].strip()
    return plain.removeprefix("\\$").removeprefix("$").strip()


def as_answer(reference: str, extractors: Sequence[Extractor]) -> str:
    """Returns a reference written as an answer in which the first extractor finds it."""
    plain = next(answers(reference, ["boxed", "hash", "whole"]), "")
    match extractors[0]:
        case "boxed":
            return f"\\boxed{{{plain}}}"
        case "hash":
            return f"#### {plain}"
        case "answer":
            return f"The answer is ${plain}$"
        case "latex":
            return f"${plain}$"
        case _:
            return plain


def _find(extractor: Extractor, text: str) -> str | None:
    match extractor:
        case "boxed":
            return _boxed(text)
        case "hash":
            _, mark, after = text.rpartition("####")
            return after.split("\n", 1)[0] if mark else None
        case "answer":
            return _after_answer_is(text)
        case "latex":
            return _last_latex(text)
        case "number":
            return _last_number(text)
        case "whole":
            return text


def _boxed(text: str) -> str | None:
    r"""Returns what stands in the last `\boxed{}` (or `\fbox{}`) that is closed."""
    for opening in (r"\boxed{", r"\fbox{"):
        start = len(text)
        for _ in range(MAX_OPEN):
            start = text.rfind(opening, 0, start)
            if start < 0:
                break
            if (inner := _braced(text, start + len(opening))) is not None:
                return inner
    return None


def _braced(text: str, start: int) -> str | None:
    """Returns the text from `start` to the brace that closes the one before it."""
    depth = 1
    for at in range(start, min(len(text), start + MAX_ANSWER + 1)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if not depth:
            return text[start:at]
    return None


def _after_answer_is(text: str) -> str | None:
    last = _last_match(_ANSWER_IS, text)
    if last is None:
        return None
    line = _HOPE.sub("", text[last.end() :].split("\n", 1)[0][: 2 * MAX_ANSWER])
    latex = _last_latex(line)
    if latex is not None:
        return latex
    bare = tidy(line.replace("*", ""))
    first = NUMBER.search(bare)
    return bare if not first or not any(c.isalpha() for c in bare) or "\\" in bare else first[0]


def _last_latex(text: str) -> str | None:
    """Returns the last formula between dollar signs, or in brackets with backslashes."""
    found: list[tuple[int, str]] = []
    plain = text.replace("\\$", "  ").replace("$$", "$ ")
    end = plain.rfind("$")
    start = plain.rfind("$", 0, end) if end > 0 else -1
    if start >= 0 and plain.count("$") % 2 == 0 and end - start <= MAX_ANSWER:
        found.append((end, plain[start + 1 : end]))
    for opening, closing in (("\\(", "\\)"), ("\\[", "\\]")):
        end = text.rfind(closing)
        start = text.rfind(opening, 0, end) if end > 0 else -1
        if start >= 0:
            found.append((end, text[start + 2 : end]))
    return max(found)[1] if found else None


def _last_number(text: str) -> str | None:
    last = _last_match(NUMBER, text)
    return last[0] if last else None


def _last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)
