"""Makes text of models and users safe to look at: marks that would hide or reorder text are written out."""

from __future__ import annotations

import re
import unicodedata

from markupsafe import Markup, escape

HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e007f]"
    "|(?<=[\x00-\x7f])[\u200c\u200d]|^[\u200c\u200d]"
)
"""Controls (but line breaks and tabs), marks of direction, and characters that show nothing. Joiners behind a
letter of a script that uses them, or within an emoji, are text."""
MARK = Markup('<span class="hidden-mark" title="{name}">{shown}</span>')
CODE = Markup("<code>{}</code>")
PICTURES = 0x2400
"""Where Unicode has pictures of the first 32 controls."""


def visible(text: object) -> Markup:
    """Returns text, escaped, in which hidden characters stand as marks that name them; nothing for None.

    A completion can hold terminal sequences, zero-width characters or marks of direction, by which a reader
    sees something else than the grader did.
    """
    if text is None:
        return Markup("")
    whole = str(text).replace("\r\n", "\n")
    parts, end = [], 0
    for found in HIDDEN.finditer(whole):
        parts += [escape(whole[end : found.start()]), _mark(found[0])]
        end = found.end()
    return Markup("").join([*parts, escape(whole[end:])])


def coded(text: str) -> Markup:
    """Returns a sentence of ours, escaped, in which words between backticks stand as code."""
    return Markup("").join(
        CODE.format(part) if place % 2 else escape(part) for place, part in enumerate(text.split("`"))
    )


def _mark(character: str) -> Markup:
    code = ord(character)
    if code < 0x20:
        return MARK.format(name=f"control character {code}", shown=chr(PICTURES + code))
    return MARK.format(name=unicodedata.name(character, "control character").lower(), shown=f"U+{code:04X}")
