"""Finds the value that a line of prose gives: the whole expression, not its last digits.

A line is cut into tokens once. Tokens of mathematics that stand together are an expression; words part them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from graders.math.formulas import without_marks
from graders.math.reading import read_part
from graders.math.tidy import with_times, without_line_marks, without_markup
from graders.math.units import MAX_UNIT, may_begin_unit, read_unit
from graders.minus import plain_minus

MAX_LINE = 4_000
"""Characters of a line, from its end, in which a value is looked for."""

_GAP = "[,\u00a0\u2009\u202f ]|\\\\[,! ]|,\\\\!\\s?|\\{,\\}"
_NUMBER = (
    r"0[xX][0-9A-Fa-f]+\b|0[bB][01]+\b|0[oO][0-7]+\b"
    rf"|(?:[0-9]{{1,3}}(?:(?:{_GAP})[0-9]{{3}})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{{1,5}}(?![\w.]))?"
    r"|\.[0-9]+"
)
_LETTER = r"[^\W\d_²³¹⁰-₉]"
_TOKEN = re.compile(
    rf"(?P<number>{_NUMBER})"
    r"|(?P<command>(?<=[0-9A-F])\s\(?base[ -]?\w+\)?"
    r"|\\(?:text|mathrm|operatorname|mbox|textbf|mathbf|mathbb)\s*\{[^{}]*\}"
    r"|\\[a-zA-Z]+|\\[^\s]|_\{[^{}]{1,20}\}|[$€£¥₹₩√∞π½⅓¼¾⅔])"
    r"|(?P<raised>[⁰¹²³⁴-⁹⁻⁺ⁿ]+|[₀-₉]+)"
    rf"|(?P<space>[^\S\n]+)|(?P<word>{_LETTER}{{2,}}(?:['’-]{_LETTER}+)*)|(?P<times>[xX](?=\s?10\s?\^))"
    rf"|(?P<letter>{_LETTER})"
    r"|(?P<joint>[-+*/^_=<>≤≥≠≈±×·⋅÷%°|!()\[\]{}&∪∩∈:,;−→⇒])|(?P<other>.)",
    re.DOTALL,
)
_FUNCTIONS = frozenset(["sqrt", "sin", "cos", "tan", "log", "ln", "exp", "pi", "inf", "infinity"])
_LISTED = frozenset(("and", "or"))
_THOUSANDS = re.compile(r",(?=[0-9]{3}(?![0-9]))")
_GIVES = re.compile(r"(?:=|→|⇒|\\rightarrow|\\to|\\implies|\\Rightarrow)(?!=)")
_SAID_MINUS = re.compile(r"\b(?:negative|minus) (?=\\?\$?[0-9.])", re.IGNORECASE)
_NAMED = re.compile(r"\s*\\?[a-zA-Z]{1,10}(?:_(?:\w|\{\w+\}))?(?:\s*\([a-zA-Z0-9, ]{1,9}\))?\s*")
_TRIMMED_START = re.compile(r"\|(?=\s)|[\s=*/^<>:,;&)\]}%!≈→⇒]+|[-+](?=\s)")
_LOOSE_END = " \t-=+*/^_<>:,;&([{≈→⇒×·÷"
_LOOSE_COMMAND = re.compile(r"\\(?:times|cdot|approx|quad|qquad|to|rightarrow|\\)?\Z|\s\|\Z")
_AFTERWARDS = re.compile(
    r"\s?(?:(?:percent(?:age)?|pct|thousand|million|billion|trillion|[ap]\.?m)\b\.?\s?)+", re.IGNORECASE
)
_SEPARATOR = re.compile(r"\s*(?:[,;]\s+(?:and\s|or\s)?|\b(?:and|or)\b)\s*")
"""Parts the members of a list in prose; a comma without a space after it is part of one numeral."""
_SAID = re.compile(r"(?:[:=]|\b(?:is|are|be|was|equals?|values|solutions|roots|numbers))\s*\Z")
_ONLY_NUMBER = re.compile(
    r"(?:(?!sqrt|sin|cos|tan|log|exp)[A-Za-z][a-z']+,? )+(-?[0-9]{1,15}(?:\.[0-9]{1,15})?)"
    r"(?: (?!percent|pct|hundred|thousand|million|billion|trillion|base|and\b|or\b)"
    r"([a-z]{2,})(?: [a-z]{2,})*)?\.?"
)
"""A line of words with one number, as most last lines are: it needs no tokens."""

_OPERATORS = frozenset("+-*/^_=<>≤≥≠≈±×·⋅÷−∪∩∈")
_CURRENCY = frozenset((r"\$", "$", "€", "£", "¥", "₹", "₩"))
_NO_VALUE = re.compile(
    r"\\(?:text|mathrm|operatorname|mbox|textbf)\b|\\[^a-zA-Z]|\\(?:quad|qquad|left|right)\b|[$€£¥₹₩]"
)


class Expression(NamedTuple):
    """Says where in a line an expression stands."""

    start: int
    end: int
    text: str


def plain_line(line: str) -> str:
    """Returns a line without marks of markup and formulas, a minus as `-`, a price's dollar sign escaped."""
    plain = _SAID_MINUS.sub("-", without_line_marks(without_markup(line)))
    return without_marks(plain_minus(with_times(plain))).strip()


def last_value(line: str) -> str | None:
    """Returns the last expression of a plain line, with its unit; None if there is none.

    Of a list only the last member counts, unless the line is the list or says that it is one.
    """
    if (only := _ONLY_NUMBER.fullmatch(line)) is not None and not (only[2] and may_begin_unit(only[2])):
        return only[1]
    line = line[-MAX_LINE:]
    every = list(expressions(line))
    if not every:
        return None
    found = every[-1]
    is_said = not line[: found.start].strip() or _SAID.search(line[: found.start]) is not None
    text, rest = _with_unit(line, found)
    if len(every) > 1 and read_part(whole := line[every[-2].start : found.start] + text) is not None:
        return whole  # two units of one quantity: 5 feet 3 inches
    is_list = is_said and not rest.strip(" .!)*\"'")
    return text if is_list else _SEPARATOR.split(text)[-1] if _is_listed(text) else text


def first_value(line: str) -> str | None:
    """Returns the expression that a plain line begins with, with its unit; None if it begins with words."""
    line = line[:MAX_LINE]
    found = next(expressions(line), None)
    if found is None or line[: found.start].strip(" (:*\"'"):
        return None
    text, rest = _with_unit(line, found)
    is_loose = _is_listed(text) and bool(rest.strip(" .!)*\"'")) and not re.search(r",(?=\S)", text)
    return _SEPARATOR.split(text)[0] if is_loose else text


def expressions(line: str) -> Iterator[Expression]:
    """Yields the expressions of a plain line, from left to right: those that hold a number or a sign for one.

    Letters alone count where they are the whole line.
    """
    tokens = [
        Token(kind.lastgroup or "other", kind.start(), kind.end(), kind[0]) for kind in _TOKEN.finditer(line)
    ]
    start = 0
    while start < len(tokens):
        end = start
        while end < len(tokens) and _goes_on(tokens, start, end):
            end += 1
        run = tokens[start:end]
        is_all = start == 0 and all(token.kind == "space" or token.text in ".!" for token in tokens[end:])
        if run and (is_all or any(map(_is_value, run))):
            found = _trimmed(line, run[0].start, run[-1].end)
            if found.text:
                yield found
        start = max(end, start + 1)


def given(expression: str) -> str:
    """Returns the last side of a chain such as `48 + 24 = 72` or `x = 5`; an equation stays as it is."""
    sides = _GIVES.split(expression)
    if len(sides) == 1 or not sides[-1].strip() or _depth(sides[-1]):
        return expression
    named = all(
        _NAMED.fullmatch(side) or not re.search(r"(?<![\\a-zA-Z])[a-zA-Z]", side) for side in sides[:-1]
    )
    return sides[-1].strip() if named else expression


class Token(NamedTuple):
    """Says what a piece of a line is, and where it stands."""

    kind: str
    start: int
    end: int
    text: str


def _is_value(token: Token) -> bool:
    return token.kind == "number" or (token.kind == "command" and not _NO_VALUE.match(token.text))


def _goes_on(tokens: list[Token], start: int, at: int) -> bool:
    """Tells whether the token at a place belongs to the expression that began at `start`."""
    token = tokens[at]
    before = _beside(tokens, at, -1, start)
    after = _beside(tokens, at, 1, len(tokens) - 1)
    is_close = at > start and tokens[at - 1].kind != "space"
    match token.kind:
        case "times":
            return before is not None and before.kind == "number"
        case "space":
            return at > start
        case "number":
            return _takes_number(tokens, at, before, is_close)
        case "command":
            if token.text in _CURRENCY and before is not None and before.kind == "number":
                return after is None or after.kind != "number"
            return True
        case "word":
            if token.text in _LISTED:
                return (
                    before is not None
                    and _ends_operand(before)
                    and after is not None
                    and _starts_operand(after)
                )
            return token.text in _FUNCTIONS
        case "letter":
            is_led = before is not None and before.text[-1] in _OPERATORS and before.text not in ",:"
            is_attached = is_close and before is not None and before.text not in (",", ":")
            follows = after is not None and (
                after.text in _OPERATORS
                or (after.start == token.end and (after.text == "(" or after.kind == "raised"))
            )
            return is_led or is_attached or (follows and token.text not in ("I",))
        case "raised":
            return is_close
        case "joint":
            return _takes_joint(tokens, at, before, after, is_close)
        case _:
            return False


def _takes_number(tokens: list[Token], at: int, before: Token | None, is_close: bool) -> bool:
    """Tells whether a number goes on: not right after another one, unless the two make a mixed number."""
    if before is None:
        return at == 0 or not (tokens[at - 1].kind in ("word", "letter") or tokens[at - 1].text in (".", "#"))
    if before.kind == "number" and not is_close:
        return [token.text for token in tokens[at + 1 : at + 2]] == ["/"]
    if before.kind == "number" or (before.kind == "letter" and not is_close):
        return False
    return not (before.kind == "joint" and before.text in ")]" and not is_close)


def _takes_joint(
    tokens: list[Token], at: int, before: Token | None, after: Token | None, is_close: bool
) -> bool:
    token = tokens[at]
    is_followed = after is not None and after.start == token.end
    match token.text:
        case "," | ";":
            return (
                before is not None and _ends_operand(before) and after is not None and _starts_operand(after)
            )
        case ":":
            is_within = before is not None and before.kind == "number" and is_close
            return is_within and is_followed and after is not None and after.kind == "number"
        case "!":
            is_all = after is None and at == len(tokens) - 1 and tokens[0] is before
            return is_close and (
                is_all or (after is not None and (after.text in _OPERATORS or after.text == ")"))
            )
        case "(" | "[":
            return before is None or is_close or not _ends_operand(before)
        case _:
            return True


def _ends_operand(token: Token) -> bool:
    return token.kind in ("number", "letter", "command", "raised") or token.text in ")]}!%°"


def _starts_operand(token: Token) -> bool:
    return token.kind in ("number", "command", "letter") or token.text in "([{-+±"


def _beside(tokens: list[Token], at: int, step: int, last: int) -> Token | None:
    """Returns the next token that is no space, before or after a place, as far as the last place."""
    at += step
    while (at <= last) if step > 0 else (at >= last):
        if tokens[at].kind != "space":
            return tokens[at]
        at += step
    return None


def _trimmed(line: str, start: int, end: int) -> Expression:
    """Returns an expression without the operators and brackets at its ends that belong to the prose."""
    text = line[start:end]
    while True:
        lead = _TRIMMED_START.match(text)
        cut = lead.end() if lead else 0
        kept = _without_loose_end(text[cut:])
        depth = _depth(kept)
        if depth < 0 and kept[-1:] in (")", "]", "}"):
            kept = kept[: -min(-depth, len(kept) - len(kept.rstrip(")]}")))]
        elif depth > 0 and kept[:1] in ("(", "[", "{"):
            opened = min(depth, len(kept) - len(kept.lstrip("([{")))
            cut, kept = cut + opened, kept[opened:]
        start += cut
        if kept == text:
            return Expression(start, start + len(kept), kept)
        text = kept


def _without_loose_end(text: str) -> str:
    """Returns a text without the operators at its end; one that a backslash escapes stays."""
    while True:
        kept = text.rstrip(_LOOSE_END)
        if kept.endswith("\\") and len(kept) < len(text):
            return text[: len(kept) + 1]
        tail = _LOOSE_COMMAND.search(kept, max(0, len(kept) - 14))
        kept = kept[: tail.start()] if tail else kept
        if kept == text:
            return kept
        text = kept


def _depth(text: str) -> int:
    return sum(map(text.count, "([{")) - sum(map(text.count, ")]}"))


def _is_listed(text: str) -> bool:
    return not re.search(r"[(\[{]", text) and len(_SEPARATOR.split(_THOUSANDS.sub("", text))) > 1


def _with_unit(line: str, found: Expression) -> tuple[str, str]:
    """Returns what an expression gives, with the unit after it, and the rest of the line."""
    text, end = given(found.text), found.end
    if after := _AFTERWARDS.match(line, end):
        text, end = text + " " + after[0].strip(), after.end()
    words = line[end : end + MAX_UNIT].split()[:4]
    if words and may_begin_unit(words[0]) and not (words[0] == "in" and len(words) > 1):
        for count in range(len(words), 0, -1):
            name = " ".join(words[:count]).rstrip(".,;:!?)*")
            if read_unit(name) is not None:
                return f"{text} {name}", line[line.index(name, end) + len(name) :] if count == 1 else ""
    return text, line[end:]
