"""Grades `rlvr`: each row by the verifier that the row names, as open-instruct does. An extension of ours.

With several verifiers on a row their scores are added up. An unknown name is a failure of the data, where the
original warns and gives 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graders.grading import Score, grade_by
from graders.rlvr.spec import RlvrSpec
from graders.rlvr.verifiers import REFUSED, VERIFIERS, VERL, SharedGraders, Verifier, build_shared_graders
from graders.services import Services
from graders.template import Template
from graders.types import FailureKind, Grade, GradeFailed, GraderInvalid, Sample

MAX_VERIFIERS = 32
"""Verifiers of one row."""


@dataclass(frozen=True)
class Rlvr:
    """Grades each row by the verifiers that it names: a built `rlvr` grader."""

    name: str
    input: Template
    dataset: Template
    ground_truth: Template
    remap: Mapping[str, str]
    scale: float
    shared: SharedGraders
    type: str = "rlvr"

    @classmethod
    def build(cls, spec: RlvrSpec, services: Services) -> Rlvr:
        """Builds the grader that a spec describes.

        Raises `GraderInvalid` if a name is mapped to a verifier that there is not.
        """
        remap = {name.lower(): to.lower() for name, to in spec.remap.items()}
        for name, to in spec.remap.items():
            try:
                find_verifier(to, {})
            except LookupError as unknown:
                raise GraderInvalid(f"'{name}' is mapped to {unknown.args[0]}", param="remap") from None
        return cls(
            spec.name,
            Template.parse(spec.input),
            Template.parse(spec.dataset),
            Template.parse(spec.ground_truth),
            remap,
            spec.scale,
            build_shared_graders(spec, services),
        )

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        return grade_by(self._score, sample, item)

    def _score(self, sample: Sample, item: Mapping[str, Any]) -> Score:
        labelled = self._verifiers(sample, item)
        text = self.input.render(sample, item)
        completion = Sample(text, sample.finish_reason, output_tokens=sample.output_tokens)
        scores = [
            (name, verifier.verify(self.shared, completion, label)) for name, verifier, label in labelled
        ]
        total = self.scale * sum(score.value for _, score in scores)
        reason = "; ".join(f"{name}: {score.reason}" for name, score in scores)
        return Score(total, _parts(scores), reason)

    def code_labels(self, sample: Sample, item: Mapping[str, Any]) -> list[Any]:
        """Returns the labels of a row whose verifier runs tests of code.

        Raises `GradeFailed` for a row that cannot be read.
        """
        labelled = self._verifiers(sample, item)
        return [label for name, _, label in labelled if name in ("code", "code_stdio")]

    def _verifiers(self, sample: Sample, item: Mapping[str, Any]) -> list[tuple[str, Verifier, Any]]:
        names = self.dataset.value(sample, item)
        labels = self.ground_truth.value(sample, item)
        if isinstance(names, str):
            names, labels = [names], [labels]
        if not isinstance(names, list) or not 1 <= len(names) <= MAX_VERIFIERS:
            raise _invalid("The row's dataset must be the name of a verifier, or a list of names.")
        if len(names) == 1 and not isinstance(labels, list):
            labels = [labels]
        if not isinstance(labels, list) or len(labels) != len(names):
            raise _invalid(
                f"The row names {len(names)} verifiers, so its ground_truth must be a list as long."
            )
        return [self._labelled(name, label) for name, label in zip(names, labels, strict=True)]

    def _labelled(self, name: Any, label: Any) -> tuple[str, Verifier, Any]:
        try:
            known, verifier = find_verifier(name, self.remap)
        except LookupError as unknown:
            raise _invalid(f"The row's dataset names {unknown.args[0]}") from None
        if isinstance(label, list) and not verifier.takes_list:
            if len(label) != 1:
                raise _invalid(f"The ground_truth of {known} must be one value, not a list of {len(label)}.")
            label = label[0]
        return known, verifier, label


def find_verifier(name: Any, remap: Mapping[str, str]) -> tuple[str, Verifier]:
    """Returns the name a verifier is known by, and the verifier.

    Raises `LookupError` with what is wrong with the name.
    """
    key = str(name).lower()
    key = remap.get(key, key)
    key = VERL.get(key, key)
    if key in REFUSED:
        raise LookupError(f"the verifier '{key}', which {REFUSED[key]}")
    if key not in VERIFIERS:
        known = ", ".join(sorted(VERIFIERS))
        raise LookupError(f"the verifier '{str(name)[:60]}', which is not known; known are {known}.")
    return key, VERIFIERS[key]


def _parts(scores: list[tuple[str, Score]]) -> dict[str, float]:
    """Returns each verifier's score, not scaled, and its own parts below it.

    They are means where a verifier is named twice.
    """
    found: dict[str, list[float]] = {}
    for name, score in scores:
        found.setdefault(name, []).append(score.value)
        for part, value in score.parts.items():
            found.setdefault(f"{name}.{part}", []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def _invalid(message: str) -> GradeFailed:
    return GradeFailed(FailureKind.INVALID_VARIABLE, message)
