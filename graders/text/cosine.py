"""Grades `text_similarity` by `cosine`: the angle between two texts' embeddings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graders.grading import Score, grade_by
from graders.services import Embedder
from graders.template import Template
from graders.text.text_similarity import MAX_TEXT
from graders.types import Grade, Sample


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """Returns the cosine of the angle between two vectors, from -1 to 1; 0 if one of them is 0."""
    lengths = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


@dataclass(frozen=True)
class Cosine:
    """Grades by the angle between embeddings: a built grader.

    Opposite meanings count as none: the value is never below 0.
    """

    name: str
    input: Template
    reference: Template
    embedder: Embedder
    type: str = "text_similarity"

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        return grade_by(self._score, sample, item)

    def _score(self, sample: Sample, item: Mapping[str, Any]) -> Score:
        reference = self.reference.render(sample, item)[:MAX_TEXT]
        text = self.input.render(sample, item)[:MAX_TEXT]
        if not text.strip() or not reference.strip():
            return Score(0.0)
        found = self.embedder.embed((text, reference))
        value = min(1.0, max(0.0, cosine(*found.vectors)))
        return Score(value, usage={found.model: found.usage})
