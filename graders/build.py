"""Builds, from a spec, a grader that can be called."""

from __future__ import annotations

from graders.code.python_grader import PythonGrader
from graders.code.spec import PythonSpec
from graders.code.tests_grader import CodeTests
from graders.code.tests_spec import CodeTestsSpec
from graders.environment import EnvironmentReward, EnvironmentSpec
from graders.fields.grader import Fields
from graders.fields.spec import FieldsSpec
from graders.formula import Formula
from graders.grading import of_answer
from graders.instructions.grader import Instructions
from graders.instructions.spec import InstructionsSpec
from graders.judges.endpoint import Endpoint
from graders.judges.label_model import LabelModel
from graders.judges.rank import Rank
from graders.judges.rank_spec import RankSpec
from graders.judges.rubric import RubricGrader
from graders.judges.rubric_spec import RubricSpec
from graders.judges.score_model import ScoreModel
from graders.judges.spec import EndpointSpec, LabelModelSpec, ScoreModelSpec
from graders.math.grader import MathAnswer
from graders.math.spec import MathSpec
from graders.multi import Multi, MultiOfGroups
from graders.rlvr.grader import Rlvr
from graders.rlvr.spec import RlvrSpec
from graders.services import (
    NO_SERVICES,
    Services,
    required_embedder,
    required_endpoint,
    required_judge,
    required_sandbox,
)
from graders.spec import GraderSpec, MultiSpec, SingleSpec, StringCheckSpec, TextSimilaritySpec
from graders.template import Template
from graders.text.cosine import Cosine
from graders.text.string_check import StringCheck
from graders.text.text_similarity import TextSimilarity, similarity
from graders.types import Grader, GraderInvalid, GroupGrader


def build_grader(spec: GraderSpec, services: Services = NO_SERVICES) -> Grader:
    """Returns the grader that a spec describes; it keeps no state and may be shared between threads.

    Completions reach it without their thoughts. Raises `GraderInvalid` for a grader that needs a service
    which is not there.
    """
    if isinstance(spec, MultiSpec):
        return _build_multi(spec, services)
    return of_answer(_build_single(spec, services), spec.thoughts)


def _build_single(spec: SingleSpec, services: Services) -> Grader:
    match spec:
        case StringCheckSpec():
            return StringCheck(
                spec.name, Template.parse(spec.input), Template.parse(spec.reference), spec.operation
            )
        case TextSimilaritySpec():
            texts = (Template.parse(spec.input), Template.parse(spec.reference))
            if spec.evaluation_metric == "cosine":
                return Cosine(spec.name, *texts, required_embedder(services))
            return TextSimilarity(spec.name, *texts, similarity(spec.evaluation_metric))
        case ScoreModelSpec():
            return ScoreModel.build(spec, required_judge(services, spec.type))
        case LabelModelSpec():
            return LabelModel.build(spec, required_judge(services, spec.type))
        case RankSpec():
            return Rank.build(spec, required_judge(services, spec.type))
        case RubricSpec():
            return RubricGrader.build(spec, required_judge(services, spec.type))
        case EndpointSpec():
            return Endpoint.build(spec, required_endpoint(services))
        case PythonSpec():
            return PythonGrader.build(spec, required_sandbox(services, "python"))
        case FieldsSpec():
            return Fields.build(spec)
        case MathSpec():
            return MathAnswer.build(spec)
        case InstructionsSpec():
            return Instructions.build(spec)
        case CodeTestsSpec():
            return CodeTests.build(spec, services)
        case RlvrSpec():
            return Rlvr.build(spec, services)
        case EnvironmentSpec():
            return EnvironmentReward(spec.name)


def _build_multi(spec: MultiSpec, services: Services) -> Grader:
    """Builds a `multi`; thoughts are removed once for all, unless a sub-grader has a setting of its own."""
    graders = _build_subgraders(spec, services)
    thoughts = {key: spec.thoughts_of(key) for key in graders}
    formula = Formula.parse(spec.calculate_output, frozenset(graders))
    ranges = {key: single.reward_range for key, single in spec.subgraders.items()}
    of_answers: dict[str, Grader] = {key: of_answer(part, thoughts[key]) for key, part in graders.items()}
    is_once = all(setting == spec.thoughts for setting in thoughts.values())
    make = MultiOfGroups if any(isinstance(part, GroupGrader) for part in graders.values()) else Multi
    multi = make(
        spec.name, graders if is_once else of_answers, formula, ranges, invalid_grade=spec.invalid_grade
    )
    return of_answer(multi, spec.thoughts) if is_once else multi


def _build_subgraders(spec: MultiSpec, services: Services) -> dict[str, Grader]:
    built: dict[str, Grader] = {}
    faults = []
    for key, part in spec.subgraders.items():
        try:
            built[key] = _build_single(part, services)
        except GraderInvalid as fault:
            faults.append(fault.below(spec.path_of(key)))
    if faults:
        raise GraderInvalid.together(faults)
    return built
