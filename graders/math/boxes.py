r"""Finds the answer in a text's last box, `\boxed{}` or `\fbox{}`, and whether the text takes it back."""

from __future__ import annotations

import re
from typing import NamedTuple

from graders.math.formulas import MAX_FORMULA

MAX_BOXES = 24
"""Boxes, from the end, that may be members of one list."""

_BOX = re.compile(r"\\(?:(?:boxed|fbox)\s*(?:(\{)|([0-9a-zA-Z])|\Z)|(?:boxe?|bo|fbo?)\Z)")
_JOINED = re.compile(
    r"[^\S\n]*(?:\$+|\\[\])]|[.)]?)?(?:\s+(?!and\b|or\b)[a-z]+)?\s*"
    r"(?:,|;|\b(?:and|or)\b|\\text\s*\{[^{}]{0,40}\b(?:and|or)\b[^{}]{0,9}\}|\\q?quad|\\[,;: ])"
    r"(?:\s|\\q?quad|\\[,;: ]|,|\band\b|\bor\b|\\text\s*\{\s*,?\s*(?:and|or)\s*\}"
    r"|\$|\\[\[(]|[a-zA-Z](?:_\{?\w\}?)?\s*=)*"
)
_TAKEN_BACK = re.compile(
    r"\b(?:(?:that|this|it|which|my answer|the above)(?:'s|\s+is|\s+was)\s+(?:clearly\s+|actually\s+|all\s+)?"
    r"(?:wrong|incorrect|not\s+(?:right|correct)|an?\s+(?:mistake|error))"
    r"|(?:that|this|it)\s+(?:can(?:no|')t|cannot)\s+be\s+(?:right|correct)"
    r"|(?:that|this|it)\s+(?:isn't|wasn't|is\s+not)\s+(?:right|correct)|scratch\s+that|i\s+(?:was|am)\s+(?:wrong|mistaken)"
    r"|i\s+(?:made|have\s+made)\s+an?\s+(?:\w+\s+)?(?:mistake|error)|i\s+(?:take|took)\s+(?:that|it|this)\s+back|i\s+(?:retract|withdraw)"
    r"|(?:wait|actually),?\s+no(?=[,.;:!])"
    r"|(?:ignore|disregard)\s+(?:that|this|the\s+above|my))\b|\bcorrection:",
    re.IGNORECASE,
)


class Boxed(NamedTuple):
    """Says what stands in the last box.

    Attributes:
        inner: its content; empty where the box is empty or cut off.
        after: where the text after it, or after the words that take it back, begins.
        is_withdrawn: whether later words take it back.
    """

    inner: str
    after: int
    is_withdrawn: bool


def last_box(text: str) -> Boxed | None:
    """Returns what the box that was begun last holds, with those it is listed with; None without a box."""
    if "\\boxed" not in text and "\\fbox" not in text:
        return None
    places = list(_BOX.finditer(text, max(0, len(text) - 100 * MAX_FORMULA)))[-MAX_BOXES:]
    if not places:
        return None
    boxes = [_content(text, place) for place in places]
    inner, end = boxes[-1]
    if taken_back := _TAKEN_BACK.search(text, end):
        return Boxed("", taken_back.end(), is_withdrawn=True)
    members = [inner]
    for place, box, follower in reversed(list(zip(places, boxes, places[1:], strict=False))):
        gap = text[box[1] : follower.start()]
        if not (
            inner
            and box[0]
            and len(gap) <= 80
            and place.start() < box[1]
            and (not gap or _JOINED.fullmatch(gap))
        ):
            break
        if box[0] not in members:
            members.insert(0, box[0])
    return Boxed(", ".join(members), end, is_withdrawn=False)


def _content(text: str, place: re.Match[str]) -> tuple[str, int]:
    """Returns what a box holds, and where it ends; nothing where it is never closed."""
    if place[1] is None:
        return place[2] or "", place.end()
    depth = 1
    for at in range(place.end(), min(len(text), place.end() + MAX_FORMULA + 1)):
        depth += {"{": 1, "}": -1}.get(text[at], 0) if text[at - 1] != "\\" else 0
        if not depth:
            return text[place.end() : at].strip(), at + 1
    return "", len(text)
