"""Reads the signs that stand for a minus: models and word processors write several beside the hyphen."""

from __future__ import annotations

import re

_ALWAYS = str.maketrans(dict.fromkeys("\u2212\ufe63\uff0d\u2796", "-"))
"""Unicode's minus signs, and the hyphens of other widths."""

_BEFORE_A_NUMBER = re.compile(r"(?<![\w)\]}%])[\u2010-\u2013](?=[0-9.,$\\])")
"""Hyphens and dashes that are a sign: right before a number, and not after one, where they mean a span."""


def plain_minus(text: str) -> str:
    """Returns a text with every sign that means a minus written as `-`."""
    return text if text.isascii() else _BEFORE_A_NUMBER.sub("-", text.translate(_ALWAYS))
