"""Declares the wire format of graders: pydantic models, a union told apart by `type`.

`parse_grader` is the front door: it reads what a user sent and answers with OpenAI's error codes. The models
also validate on their own, so a stored spec can be read back as a field of another model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from graders.code.spec import PythonSpec
from graders.code.tests_spec import CodeTestsSpec
from graders.environment import EnvironmentSpec
from graders.fields.spec import FieldsSpec
from graders.formula import NAME, Formula
from graders.instructions.spec import InstructionsSpec
from graders.intervals import Interval, bounds_of
from graders.judges.rank_spec import RankSpec
from graders.judges.rubric_spec import RubricSpec
from graders.judges.spec import EndpointSpec, JudgeSpec, LabelModelSpec, ScoreModelSpec
from graders.math.spec import MathSpec
from graders.rlvr.spec import RlvrSpec
from graders.spec_base import ComparingSpec, GraderName, NamedSpec, ThoughtsSetting, refuse
from graders.spec_errors import from_pydantic, invalid_type, invalid_value, missing
from graders.template import Template, Variable
from graders.types import GraderInvalid

MAX_GRADERS = 64
"""Sub-graders in one `multi`."""


class StringCheckSpec(ComparingSpec):
    """Asks for 1 or 0 by comparing two strings."""

    type: Literal["string_check"]
    operation: Annotated[
        Literal["eq", "ne", "like", "ilike"], BeforeValidator(lambda value: "ne" if value == "neq" else value)
    ]
    """`eq` equal, `ne` different, `like` the reference stands in the answer, `ilike` whatever the case."""
    pass_threshold: float | None = None
    """From which value on evals count an answer as passed; it changes no value."""


Metric = Literal[
    "fuzzy_match",
    "bleu",
    "gleu",
    "meteor",
    "rouge_1",
    "rouge_2",
    "rouge_3",
    "rouge_4",
    "rouge_5",
    "rouge_l",
    "cosine",
]


class TextSimilaritySpec(ComparingSpec):
    """Asks how alike two texts are, 0 to 1."""

    type: Literal["text_similarity"]
    evaluation_metric: Metric
    """How likeness is measured: by edits (`fuzzy_match`), by common words (`rouge_l`, `bleu`) or by meaning
    (`cosine`)."""
    pass_threshold: float | None = None
    """From which value on evals count an answer as passed; it changes no value."""


SingleSpec = (
    StringCheckSpec
    | TextSimilaritySpec
    | PythonSpec
    | FieldsSpec
    | ScoreModelSpec
    | LabelModelSpec
    | RubricSpec
    | RankSpec
    | EndpointSpec
    | MathSpec
    | InstructionsSpec
    | CodeTestsSpec
    | RlvrSpec
    | EnvironmentSpec
)
"""Every kind that may stand alone or inside a `multi`."""
SubgraderSpec = Annotated[SingleSpec, Field(discriminator="type")]
_SINGLE_MODELS: dict[str, type[SingleSpec]] = {
    get_args(model.model_fields["type"].annotation)[0]: model for model in get_args(SingleSpec)
}


class MultiSpec(NamedSpec):
    """Combines several graders by a formula over their values.

    `graders` keeps the form it came in: an object of graders, or (as OpenAI's own types have it) one bare
    grader, which `subgraders` shows as an object of one.
    """

    type: Literal["multi"]
    name: GraderName
    """What it is called in curves and messages; made up from its content where it is left out."""
    graders: Annotated[dict[str, SubgraderSpec], Field(min_length=1, max_length=MAX_GRADERS)] | SubgraderSpec
    """The graders that are put together, each by a name that the formula uses."""
    calculate_output: str
    """The formula over their names, such as `0.7 * answer + 0.3 * why`; it has min, max, abs and the like."""
    pass_threshold: float | None = None
    """From which value on evals count an answer as passed; it changes no value."""
    invalid_grade: Annotated[float, Field(ge=-1e9, le=1e9)] | None = None
    """Azure's: the grade of a completion that a sub-grader or the formula has no valid value for."""

    @property
    def subgraders(self) -> dict[str, SubgraderSpec]:
        """Returns the sub-graders by the names that the formula uses."""
        return self.graders if isinstance(self.graders, dict) else {self.graders.name: self.graders}

    def templates(self) -> Iterator[tuple[str, str]]:
        for key, part in self.subgraders.items():
            for param, text in part.templates():
                yield f"{self.path_of(key)}.{param}", text

    @property
    def reward_range(self) -> Interval:
        formula = Formula.parse(self.calculate_output, frozenset(self.subgraders))
        found = bounds_of(formula.tree, {key: part.reward_range for key, part in self.subgraders.items()})
        return found if self.invalid_grade is None else found.with_number(self.invalid_grade)

    def path_of(self, key: str) -> str:
        """Returns where a sub-grader stands in the grader, such as `graders.city`."""
        return f"graders.{key}" if isinstance(self.graders, dict) else "graders"

    def thoughts_of(self, key: str) -> ThoughtsSetting:
        """Returns a sub-grader's own setting of `thoughts`, or else the one of the whole."""
        part = self.subgraders[key]
        return part.thoughts if "thoughts" in part.model_fields_set else self.thoughts

    @model_validator(mode="after")
    def _formula_fits(self) -> MultiSpec:
        for key in self.subgraders:
            refuse(lambda key=key: _check_key(key), "graders")  # type: ignore[misc]
        refuse(lambda: Formula.parse(self.calculate_output, frozenset(self.subgraders)), "calculate_output")
        return self


GraderSpec = Annotated[SingleSpec | MultiSpec, Field(discriminator="type")]
SUPPORTED = (*_SINGLE_MODELS, "multi")


def parse_grader(raw: Any) -> GraderSpec:
    """Reads a grader as it was sent, checking templates and formula too: what this accepts can be built.

    Missing names are filled in. Raises `GraderInvalid` for the first thing wrong, which knows of the others.
    """
    if _kind(raw, "") == "multi":
        return _parse_multi(raw)
    return _parse_single(raw, "")


def dump_grader(spec: GraderSpec) -> dict[str, Any]:
    """Returns the spec as it was received, with names filled in (and `neq` read as `ne`)."""
    return spec.model_dump(mode="json", exclude_unset=True)


def single_graders(spec: GraderSpec) -> list[SingleSpec]:
    """Returns the single graders that a grader is made of: those of a `multi`, else the grader itself."""
    return list(spec.subgraders.values()) if isinstance(spec, MultiSpec) else [spec]


def is_of_groups(spec: GraderSpec) -> bool:
    """Tells whether a grader compares the completions of one prompt with each other."""
    return any(isinstance(single, RankSpec) for single in single_graders(spec))


def judge_of(spec: GraderSpec) -> JudgeSpec | None:
    """Returns the judge model that a single grader asks; None if it asks none."""
    match spec:
        case JudgeSpec():
            return spec
        case RlvrSpec():
            return spec.judge
        case _:
            return None


def known_range(spec: GraderSpec) -> Interval | None:
    """Returns what a grader's values lie in; None where an end is not known, such as for code of a user's."""
    return spec.reward_range if spec.reward_range.is_bounded else None


def item_paths(spec: GraderSpec) -> list[tuple[str, str]]:
    """Lists every dataset field the grader reads, as (where in the grader, which path), without repeats.

    For example `("graders.city.reference", "item.address.city")`; check rows with `has_path`.
    """
    found = [
        (param, str(variable))
        for param, template in spec.templates()
        for variable in Template.parse(template).variables
        if variable.namespace == "item"
    ]
    return list(dict.fromkeys(found))


def has_path(item: dict[str, Any], path: str) -> bool:
    """Tells whether a dataset row has a path that `item_paths` named."""
    return Variable.parse(path).is_in(item)


def _kind(raw: Any, at: str) -> str:
    """Returns the grader's type. Raises `GraderInvalid` if this build does not have it."""
    if not isinstance(raw, dict):
        raise invalid_type(at, "an object", raw)
    param = f"{at}.type" if at else "type"
    if "type" not in raw:
        raise missing(param)
    kind = raw["type"]
    if not isinstance(kind, str):
        raise invalid_type(param, "a string", kind)
    if kind not in SUPPORTED:
        raise invalid_value(param, kind, SUPPORTED)
    return kind


def _parse_single(raw: Any, at: str) -> SingleSpec:
    kind = _kind(raw, at)
    if kind == "multi":
        raise GraderInvalid("A multi grader cannot contain another multi grader.", param=f"{at}.type")
    try:
        return _SINGLE_MODELS[kind].model_validate(raw)
    except ValidationError as error:
        raise from_pydantic(error, raw, at) from None


def _parse_multi(raw: dict[str, Any]) -> MultiSpec:
    """Reads the sub-graders one by one, then the rest: with stand-ins for them, where some are wrong."""
    faults: list[GraderInvalid] = []
    graders = None
    try:
        graders = _parse_graders(raw)
    except GraderInvalid as fault:
        faults = fault.all
    try:
        spec = MultiSpec.model_validate({**raw, "graders": _stand_ins(raw) if faults else graders})
    except ValidationError as error:
        rest = [*from_pydantic(error, raw, "").all, *_faults_of_formula(raw, error)]
        faults += [fault for fault in rest if not (faults and fault.param.startswith("graders"))]
    if faults:
        raise GraderInvalid.together(faults)
    return spec


def _stand_ins(raw: dict[str, Any]) -> dict[str, Any]:
    """Returns right graders under the names that a formula may use, in place of wrong ones."""
    right = {"type": "string_check", "operation": "eq", "input": "", "reference": ""}
    return dict.fromkeys(_names(raw)[:MAX_GRADERS], right)


def _names(raw: dict[str, Any]) -> list[str]:
    graders = raw.get("graders")
    given = graders if isinstance(graders, dict) else {}
    keys = [str(given.get("name"))] if isinstance(given.get("type"), str) else list(given)
    return [key for key in keys if NAME.fullmatch(key)]


def _faults_of_formula(raw: dict[str, Any], error: ValidationError) -> list[GraderInvalid]:
    """Returns what is wrong with a formula that pydantic has not come to, because of other faults."""
    formula, names = raw.get("calculate_output"), frozenset(_names(raw))
    was_checked = any(found["type"] == "grader_invalid" for found in error.errors())
    if was_checked or not isinstance(formula, str) or not names:
        return []
    try:
        Formula.parse(formula, names)
    except GraderInvalid as fault:
        message = f"Invalid value for 'calculate_output': {fault.message}"
        return [GraderInvalid(message, param="calculate_output", code=fault.code)]
    return []


def _parse_graders(raw: dict[str, Any]) -> Any:
    """Returns the value of `graders`, in the form it came in."""
    if "graders" not in raw:
        raise missing("graders")
    graders = raw["graders"]
    if not isinstance(graders, dict):
        raise invalid_type("graders", "an object", graders)
    if isinstance(graders.get("type"), str):
        if "name" not in graders:
            raise missing("graders.name")
        return _parse_single(graders, "graders")
    if not 1 <= len(graders) <= MAX_GRADERS:
        raise GraderInvalid(
            f"Invalid value for 'graders': expected 1 to {MAX_GRADERS} graders, but got {len(graders)}.",
            param="graders",
        )
    return _parse_each(graders)


def _parse_each(graders: dict[str, Any]) -> dict[str, SingleSpec]:
    found: dict[str, SingleSpec] = {}
    faults: list[GraderInvalid] = []
    for key, part in graders.items():
        try:
            _check_key(key)
            found[key] = _parse_single(part, f"graders.{key}")
        except GraderInvalid as fault:
            faults += fault.all
    if faults:
        raise GraderInvalid.together(faults)
    return found


def _check_key(key: str) -> None:
    if not NAME.fullmatch(key):
        raise GraderInvalid(
            f"Invalid name '{key[:60]}' in 'graders': the formula can only use letters, digits and "
            "underscores, starting with no digit.",
            param="graders",
        )
