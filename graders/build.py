"""From a spec to a grader that can be called."""

from __future__ import annotations

from graders.fields import Fields
from graders.formula import Formula
from graders.multi import Multi
from graders.services import NOTHING, Services
from graders.spec import GraderSpec, MultiSpec, StringCheckSpec, TextSimilaritySpec
from graders.spec_fields import FieldsSpec
from graders.string_check import StringCheck
from graders.template import Template
from graders.text_similarity import TextSimilarity, similarity
from graders.types import Grader


def build_grader(spec: GraderSpec, services: Services = NOTHING) -> Grader:
    """Compile a grader once; what it returns keeps no state and may be shared between threads.

    Raises `GraderInvalid` for a grader that needs a service which is not there.
    """
    match spec:
        case StringCheckSpec():
            return StringCheck(
                spec.name, Template.parse(spec.input), Template.parse(spec.reference), spec.operation
            )
        case TextSimilaritySpec():
            return TextSimilarity(
                spec.name,
                Template.parse(spec.input),
                Template.parse(spec.reference),
                similarity(spec.evaluation_metric),
            )
        case FieldsSpec():
            return Fields.build(spec)
        case MultiSpec():
            graders = {key: build_grader(part, services) for key, part in spec.named.items()}
            return Multi(spec.name, graders, Formula.parse(spec.calculate_output, frozenset(graders)))
