"""Writes an answer in one way: without what stands around it, with one sign for what has several."""

from __future__ import annotations

import re
import unicodedata

from graders.math.formulas import without_marks
from graders.minus import plain_minus

_EMPHASIS = re.compile(r"(?<![\w*`])(\*{1,3}|_{1,3}|`{1,3})(?=\S)([^\n]{0,400}?)(?<=\S)\1(?![\w*`])")
_STRUCK_OUT = re.compile(r"~~(?=\S)[^\n]{0,400}?~~")
_TAGS = re.compile(
    r"</?(?:b|strong|i|em|u|code|p|div|span|mark|answer|br)\s*/?>|<\|[^|<>\n]{1,40}\|>", re.IGNORECASE
)
_LINE_MARKS = re.compile(r"^\s*(?:(?:[-*+\u2022]|#{1,6}|>)\s+)+")

_THOUSANDS = re.compile(
    r"(?<=[0-9])(?:\{,\}|,?(?:\\!|\{\\!\})|(?<!\\)\\[,; ]|[~\u00a0\u2009\u202f])\s*(?=[0-9]{3}(?![0-9]))"
)
_TIMES = re.compile(r"(?<=[0-9]) [xX] (?=\\?\$?[0-9])")
_NO_SPACE = re.compile(r"(?<!\\)\\!")
_SPACING = re.compile(r"(?<!\\)\\[,;: ]|\\q?quad\b|~|\\displaystyle\b|\\left(?![a-z])\.?|\\right(?![a-z])\.?")
_SIGNS = {
    "×": r"\times ", "⋅": r"\cdot ", "·": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/", "π": r"\pi ",
    "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ",
    "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∪": r"\cup ", "∩": r"\cap ",
    "∈": r"\in ", "∅": r"\emptyset ", "°": r"^\circ", "**": "^", r"\lbrace": r"\{", r"\rbrace": r"\}",
    r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac",
}  # fmt: skip
_REPEATING = re.compile(
    r"(?<![\w.,])([0-9]{0,40})\.([0-9]{0,40})"
    r"(?:\\(?:overline|overbar|bar|dot)\s*(?:\{([0-9]{1,40})\}|([0-9]))|\(([0-9]{1,40})\))(?![\w.({\\])"
)
_ROOT = re.compile(r"(?<![\\a-z])sqrt\s*\(([^()]*)\)|√\s*(?:\(([^()]*)\)|([0-9]+(?:\.[0-9]+)?|[a-z]))")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")
_LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_PLAIN = re.compile(r"-?[0-9]{1,60}(?:\.[0-9]{1,60})?")
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x200B: None, 0x2060: None, 0xFEFF: None}
_PART = re.compile("([0-9]?)([¼-¾⅐-⅞])")


def plain_width(text: str) -> str:
    """Returns a text with letters, digits and signs of full width written as ASCII's."""
    return text if text.isascii() else text.translate(_WIDE)


def without_markup(text: str) -> str:
    """Returns a text without the marks of Markdown and HTML around its words; what is struck out goes."""
    if any(mark in text for mark in "*_`~<"):
        text = _TAGS.sub(" ", _STRUCK_OUT.sub(" ", text))
        for _ in range(3):  # one mark within another
            text = _EMPHASIS.sub(r"\2", text)
    return text


def with_times(text: str) -> str:
    """Returns a text in which an `x` between two numbers, as in `3 x 4`, is a sign."""
    return _TIMES.sub(" × ", text)


def is_plain(text: str) -> bool:
    """Tells whether a text is a number in digits alone: most answers are, and need no more work."""
    return _PLAIN.fullmatch(text) is not None


def without_line_marks(line: str) -> str:
    """Returns a line without the bullet, heading or quotation mark that it starts with."""
    return _LINE_MARKS.sub("", line)


def tidy(answer: str) -> str:
    """Returns an answer without what stands around it (space, markup, dollar signs, a full stop at the end).

    Signs outside ASCII become LaTeX's, a minus becomes `-`, and what groups thousands a comma.
    """
    answer = answer.strip()
    if is_plain(answer):
        return answer
    plain = without_markup(answer)
    plain = _THOUSANDS.sub(",", plain_minus(with_times(plain)))
    plain = without_marks(plain)
    plain = _in_latex(plain) if not plain.isascii() else plain
    plain = _SPACING.sub(" ", _NO_SPACE.sub("", plain))
    plain = _ROOT.sub(lambda root: rf"\sqrt{{{root[1] or root[2] or root[3]}}}", plain)
    plain = _REPEATING.sub(_repeating, plain)
    for sign in ("**", r"\dfrac", r"\tfrac", r"\cfrac", r"\lbrace", r"\rbrace"):
        plain = plain.replace(sign, _SIGNS[sign])
    plain = " ".join(plain.replace("{:}", ":").split())
    while plain.endswith((".", ",", ";", ":")) and not plain.endswith(".."):
        plain = plain[:-1].rstrip()
    return plain


def _in_latex(text: str) -> str:
    text = _PART.sub(_fraction, text)
    text = _RAISED.sub(lambda raised: "^{" + _folded(raised[0]) + "}", text)
    text = _LOWERED.sub(lambda lowered: "_{" + _folded(lowered[0]) + "}", text)
    for sign, latex in _SIGNS.items():
        text = text.replace(sign, latex)
    return unicodedata.normalize("NFKC", text)


def _repeating(found: re.Match[str]) -> str:
    r"""Returns a decimal whose last digits repeat as a fraction: `0.8\overline{3}` is 75/90."""
    whole, once, again = found[1], found[2], found[3] or found[4] or found[5]
    top = int(whole + once + again) - int(whole + once or "0")
    return rf"\frac{{{top}}}{{{10 ** len(once) * (10 ** len(again) - 1)}}}"


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace("\u2212", "-")


def _fraction(found: re.Match[str]) -> str:
    top, bottom = unicodedata.normalize("NFKC", found[2]).split("\u2044")
    return f"{found[1]}{' ' if found[1] else ''}{top}/{bottom}"
