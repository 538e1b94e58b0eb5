"""Grades `rlvr`: each row by the verifier that the row names, as open-instruct does. An extension of ours.

With several verifiers on a row their scores are added up. An unknown name is a failure of the data, where the
original warns and gives 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graders.grading import Score, grade_by
from graders.rlvr.judged import JUDGED, TAKES_LIST, JudgedVerifiers
from graders.rlvr.spec import RlvrSpec
from graders.rlvr.verifiers import REFUSED, VERIFIERS, VERL, SharedGraders, build_shared_graders
from graders.services import Services, required_judge
from graders.template import Template
from graders.types import FailureKind, Grade, GradeFailed, GraderInvalid, Sample, add_usages

MAX_VERIFIERS = 32
"""Verifiers of one row."""
NO_JUDGE = (
    "is scored by a judge model, and the grader names none: give it one, such as "
    '"judge": {"model": "gpt-4.1-mini"} (cherry import rlvr: --judge MODEL).'
)
_NOTHING = Sample("", output_tokens=0)


@dataclass(frozen=True)
class Rlvr:
    """Grades each row by the verifiers that it names: a built `rlvr` grader.

    `judged` holds the verifiers that ask a judge; None where the grader names none.
    """

    name: str
    input: Template
    dataset: Template
    ground_truth: Template
    remap: Mapping[str, str]
    scale: float
    shared: SharedGraders
    judged: JudgedVerifiers | None
    type: str = "rlvr"

    @classmethod
    def build(cls, spec: RlvrSpec, services: Services) -> Rlvr:
        """Builds the grader that a spec describes.

        Raises `GraderInvalid` if a name is mapped to a verifier that there is not, or the judge cannot be
        asked.
        """
        remap = {name.lower(): to.lower() for name, to in spec.remap.items()}
        for name, to in spec.remap.items():
            try:
                find_verifier(to, {}, has_judge=spec.judge is not None)
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
            _build_judged(spec, services),
        )

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        return grade_by(self._score, sample, item)

    def _score(self, sample: Sample, item: Mapping[str, Any]) -> Score:
        labelled = self._verifiers(sample, item)
        text = self.input.render(sample, item)
        completion = Sample(
            text,
            sample.finish_reason,
            output_tokens=sample.output_tokens,
            messages=sample.messages,
            draw=sample.draw,
        )
        scores: list[tuple[str, Score]] = []
        for name, label in labelled:
            try:
                scores.append((name, self._verified(name, completion, label, item)))
            except GradeFailed as failed:
                spent = add_usages([*(score.usage for _, score in scores), failed.usage])
                raise GradeFailed(failed.failure.kind, failed.failure.message, usage=spent) from None
        total = self.scale * sum(score.value for _, score in scores)
        reason = "; ".join(f"{name}: {score.reason}" for name, score in scores)
        return Score(total, _parts(scores), reason, add_usages(score.usage for _, score in scores))

    def _verified(self, name: str, completion: Sample, label: Any, item: Mapping[str, Any]) -> Score:
        if name in JUDGED:
            assert self.judged is not None
            return self.judged.score(name, completion, label, item)
        return VERIFIERS[name].verify(self.shared, completion, label)

    def check_row(self, item: Mapping[str, Any]) -> None:
        """Raises `GradeFailed` for a row that cannot be verified, as far as that is known without a judge."""
        for name, label in self._verifiers(_NOTHING, item):
            if name in JUDGED and self.judged is not None:
                self.judged.check(name, label, item)
            else:
                VERIFIERS[name].verify(self.shared, _NOTHING, label)

    def code_labels(self, sample: Sample, item: Mapping[str, Any]) -> list[Any]:
        """Returns the labels of a row whose verifier runs tests of code.

        Raises `GradeFailed` for a row that cannot be read.
        """
        labelled = self._verifiers(sample, item)
        return [label for name, label in labelled if name in ("code", "code_stdio")]

    def _verifiers(self, sample: Sample, item: Mapping[str, Any]) -> list[tuple[str, Any]]:
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

    def _labelled(self, name: Any, label: Any) -> tuple[str, Any]:
        try:
            known = find_verifier(name, self.remap, has_judge=self.judged is not None)
        except LookupError as unknown:
            raise _invalid(f"The row's dataset names {unknown.args[0]}") from None
        if isinstance(label, list) and not _takes_list(known):
            if len(label) != 1:
                raise _invalid(f"The ground_truth of {known} must be one value, not a list of {len(label)}.")
            label = label[0]
        return known, label


def _build_judged(spec: RlvrSpec, services: Services) -> JudgedVerifiers | None:
    if spec.judge is None:
        return None
    try:
        return JudgedVerifiers.build(spec.judge, required_judge(services, "rlvr"))
    except GraderInvalid as fault:
        raise fault.below("judge") from None


def _takes_list(name: str) -> bool:
    return name in TAKES_LIST or (name in VERIFIERS and VERIFIERS[name].takes_list)


def find_verifier(name: Any, remap: Mapping[str, str], *, has_judge: bool = False) -> str:
    """Returns the name a verifier is known by.

    Raises `LookupError` with what is wrong with the name.
    """
    key = str(name).lower()
    key = remap.get(key, key)
    key = VERL.get(key, key)
    if key in REFUSED:
        raise LookupError(f"the verifier '{key}', which {REFUSED[key]}")
    if key in JUDGED:
        if not has_judge:
            raise LookupError(f"the verifier '{key}', which {NO_JUDGE}")
        return key
    if key not in VERIFIERS:
        known = ", ".join(sorted({*VERIFIERS, *JUDGED}))
        raise LookupError(f"the verifier '{str(name)[:60]}', which is not known; known are {known}.")
    return key


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
