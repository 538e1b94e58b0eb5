"""Marks for answers: share of right fields for JSON, equality for everything else."""

import json
import re
from collections.abc import Mapping
from typing import Any


def normalized(value: object) -> str:
    """Lower case, single spaces, no punctuation around words."""
    return " ".join(re.sub(r"[^\w\s+#]", " ", str(value).lower()).split())


def set_f1(answer: object, reference: list[Any]) -> float:
    """F1 of precision and recall over normalised items."""
    if not isinstance(answer, list):
        return 0.0
    got, wanted = {normalized(item) for item in answer}, {normalized(item) for item in reference}
    if not got or not wanted:
        return float(got == wanted)
    return 2 * len(got & wanted) / (len(got) + len(wanted))


def fields_score(answer: object, reference: Mapping[str, Any]) -> float:
    """Mean over the reference's fields; each extra key counts as one more field that is wrong."""
    if not isinstance(answer, dict):
        return 0.0
    total = 0.0
    for key, wanted in reference.items():
        if key not in answer:
            continue
        if isinstance(wanted, list):
            total += set_f1(answer[key], wanted)
        elif isinstance(wanted, dict):
            total += fields_score(answer[key], wanted)
        else:
            total += normalized(answer[key]) == normalized(wanted)
    return total / (len(reference) + len(answer.keys() - reference.keys()))


def score(answer: str, right: str) -> float:
    """From 0 to 1."""
    if not right.startswith("{"):
        return float(normalized(answer) == normalized(right))
    try:
        return fields_score(json.loads(answer), json.loads(right))
    except ValueError:
        return 0.0
