"""Gives symbols that math-verify takes for each other letters of their own, in both texts alike.

latex2sympy2_extended 1.11.0, which reads for math-verify 0.9.0, makes capitals small (`R-r` is 0), drops
primes (`y''` is `y`) and an exponent that is a T (`A^T` is `A`), and gives the derivative `dy/dx` the value
0. Here a capital becomes a letter that neither text has where a text also has the small one, and so do primed
letters, derivatives and a T that is an exponent. A letter in one case only equals it in the other case.
"""

from __future__ import annotations

import re
from collections.abc import Callable

FREE = "qwzyxvutsrpnmkjcbahgf"
"""Letters that may stand for other symbols, none that is a constant, a differential or looks like a digit."""

_COMMAND = r"\\[a-zA-Z]+"
_TEXT = r"\\(?:text|textbf|textit|textrm|mathrm|mbox|operatorname)\s*\{[^{}]*\}"
_PRIMED = re.compile(rf"({_COMMAND}|[a-zA-Z])\s*('{{1,4}}|\^\s*\{{?\s*(?:\\prime\s*){{1,4}}\}}?)")
_TRANSPOSED = re.compile(
    r"\^\s*(?:\\(?:top|intercal)(?![a-zA-Z])|T(?![a-zA-Z])"
    r"|\{\s*(?:\\(?:top|intercal)|T|\\(?:mathrm|text|mathsf)\s*\{\s*T\s*\})\s*\}|\\(?:mathrm|text|mathsf)\s*\{\s*T\s*\})"
)
_OPERATOR = r"(?:d|\\partial)"
_ORDER = r"(?:\s*\^\s*\{?\s*([1-9])\s*\}?)?"
_DERIVATIVE = re.compile(
    rf"\\frac\s*\{{\s*{_OPERATOR}{_ORDER}\s*({_COMMAND}|[a-zA-Z])\s*\}}"
    rf"\s*\{{\s*{_OPERATOR}\s*({_COMMAND}|[a-zA-Z]){_ORDER}\s*\}}"
)
_SYMBOL = re.compile(rf"{_TEXT}|({_COMMAND}|[a-zA-Z])")


def told_apart(reference: str, answer: str) -> tuple[str, str]:
    """Returns both texts with letters of their own for what the library would take for something else."""
    names = _Names(reference + answer)
    varied = {found[3] for text in (reference, answer) for found in _DERIVATIVE.finditer(text)}
    variable = next(iter(varied)) if len(varied) == 1 else None

    def derived(found: re.Match[str]) -> str:
        times = int(found[1] or 1)
        of = "" if found[3] == variable else f" by {found[3]}"
        return names.of(f"{found[2]}, {times} times{of}", found[0])

    def primed(found: re.Match[str]) -> str:
        times = found[2].count("'") or found[2].count("prime")
        return names.of(f"{found[1]}, {times} times", found[0])

    texts = [_PRIMED.sub(primed, _DERIVATIVE.sub(derived, text)) for text in (reference, answer)]
    both = {capital for text in texts for capital in _in_both_cases(text)}
    if any(_TRANSPOSED.search(text) for text in texts):
        texts = [_TRANSPOSED.sub(lambda _: "^{T}", text) for text in texts]
        both.add("T")
    if both:
        texts = [_SYMBOL.sub(_renaming(both, names), text) for text in texts]
    return texts[0], texts[1]


class _Names:
    """Hands out letters that a text does not have, one for each symbol."""

    def __init__(self, text: str) -> None:
        taken = {letter.lower() for letter in _letters(text)}
        self._free = [letter for letter in FREE if letter not in taken]
        self._given: dict[str, str] = {}

    def of(self, symbol: str, otherwise: str) -> str:
        """Returns the letter of a symbol; what is given for it where no letter is left."""
        if symbol not in self._given and self._free:
            self._given[symbol] = self._free.pop(0)
        return self._given.get(symbol, otherwise)


def _letters(text: str) -> set[str]:
    """Returns the letters and commands of a text that stand for something, without those in words."""
    return {found[1] for found in _SYMBOL.finditer(text) if found[1]}


def _in_both_cases(text: str) -> set[str]:
    r"""Returns the capitals of a text, `M` or `\Omega`, whose small letters it has too."""
    letters = _letters(text)
    return {letter for letter in letters if letter.lower() != letter and letter.lower() in letters}


def _renaming(symbols: set[str], names: _Names) -> Callable[[re.Match[str]], str]:
    def renamed(found: re.Match[str]) -> str:
        symbol = found[1]
        if not symbol or symbol not in symbols:
            return found[0]
        letter = names.of(symbol, symbol)
        # A command ends where no letter follows; a letter in its place may stand right before another.
        return f"{letter} " if symbol.startswith("\\") else letter

    return renamed
