"""A hyperparameter is declared once, at its field of a run's config; all else follows from there.

    group_size: Annotated[int, Field(ge=2, le=256), Hyperparameter(auto=auto.group_size)]
    \"\"\"Completions per prompt. Their mean reward is the baseline.\"\"\"

That gives the field of a request's `hyperparameters` (its first sentence is what /openapi.json says), how
"auto" becomes a number, what the job shows, and the row in docs/extensions.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel, Discriminator, Field, Tag
from pydantic.fields import FieldInfo

from methods.algorithms import AlgorithmName

Method = Literal["reinforcement", "supervised", "dpo"]
AUTO, OR_AUTO = "~auto", "~or-auto"
"""Tags of a number that may be "auto" too, as text and as anything else. They are in the path of a fault."""
AUTO_SWITCH = "~auto-switch"
"""Tag of the text where true and false may be "auto" too."""


@dataclass(frozen=True)
class Hyperparameter:
    """Marks a field of a run's config as a number that somebody chooses.

    Attributes:
        auto: gives the value where nobody names one. None leaves the field's default, or the algorithm's.
        left_out: what the docs say of that; "" lets them tell the default.
        name: its name in a request; "" is the field's own.
        methods: in whose requests it may be set, of those whose config has the field; None stands for all, an
            empty tuple for a number that only the service chooses.
        is_openais: OpenAI has it too: a request may say "auto", and a job shows it from the start.
        algorithms: which ones read it; none stands for all.
        of_adapter: whether it means anything only where an adapter is trained.
        wire: its type in a request, where JSON has no such type as the field's.
    """

    auto: Callable[[Known], Any] | None = None
    left_out: str = ""
    name: str = ""
    methods: tuple[Method, ...] | None = None
    is_openais: bool = False
    algorithms: tuple[AlgorithmName, ...] = ()
    of_adapter: bool = False
    wire: Any = None

    def is_settable(self, method: Method) -> bool:
        """Whether a request of this method may set it."""
        return self.methods is None or method in self.methods


class Declared(NamedTuple):
    """One field of a config that is marked."""

    field: str
    name: str
    """In requests."""
    info: FieldInfo
    mark: Hyperparameter


def declared(config: type[BaseModel]) -> Iterator[Declared]:
    """Yields the marked fields of a config, in their order."""
    for field, info in config.model_fields.items():
        for mark in info.metadata:
            if isinstance(mark, Hyperparameter):
                yield Declared(field, mark.name or field, info, mark)


class Facts(NamedTuple):
    """What validation found of the model and the files; lengths are in tokens."""

    hidden_size: int
    context: int
    longest_prompt: int
    n_train: int
    n_valid: int = 0
    thinks: bool = False
    """The model begins its answers with thoughts."""
    budget_share: float | None = None
    """The share of a completion that the effort asked for leaves to thoughts; None where the chat template
    sees to it, and without one."""


class Known:
    """The values of one run as they are resolved: asked for, given by the service, or by a field's rule."""

    def __init__(
        self,
        config: type[BaseModel],
        method: Method,
        asked: Mapping[str, Any],
        given: Mapping[str, Any],
        facts: Facts,
    ) -> None:
        """`asked` has the names of requests and no "auto" or null in it; `given` those of the config."""
        self.method = method
        self.asked = asked
        self.facts = facts
        self._fields = {one.field: one for one in declared(config)}
        self._found: dict[str, Any] = {**given}
        for one in self._fields.values():
            if one.mark.is_settable(method) and one.name in asked:
                self._found[one.field] = asked[one.name]

    def __getitem__(self, field: str) -> Any:
        """The field's value, by its rule or default where nobody chose one."""
        if field not in self._found:
            one = self._fields[field]
            if one.mark.auto is None:
                return one.info.default
            self._found[field] = one.mark.auto(self)
        return self._found[field]

    def values(self) -> dict[str, Any]:
        """Everything that was chosen or follows from a rule; the config's defaults fill in the rest."""
        for field, one in self._fields.items():
            if one.mark.auto is not None:
                self[field]
        return dict(self._found)

    @property
    def steps_per_epoch(self) -> int:
        """Updates of one pass over the training rows."""
        batch = self["prompts_per_step" if self.method == "reinforcement" else "batch_size"]
        return -(-self.facts.n_train // int(batch))


def settable(config: type[BaseModel], method: Method) -> list[Declared]:
    """What a request of this method may set."""
    return [one for one in declared(config) if one.mark.is_settable(method)]


def request_fields(config: type[BaseModel], method: Method) -> dict[str, Any]:
    """The fields of a request's `hyperparameters`, as `pydantic.create_model` takes them.

    OpenAI's are "auto" unless they are given; ours are None, and a default or rule decides.
    """
    return {one.name: _request_field(one) for one in settable(config, method)}


def _request_field(one: Declared) -> tuple[Any, Any]:
    """Its type in a request, and pydantic's `Field` with its default."""
    kind = one.mark.wire or one.info.annotation
    bounds = [part for part in one.info.metadata if not isinstance(part, Hyperparameter)]
    bounded: Any = Annotated[(kind, *bounds)] if bounds else kind
    if not one.mark.is_openais:
        sentence = first_sentence(one.info)
        said = f"Cherry: {sentence[:1].lower()}{sentence[1:]}"
        return _or_auto(bounded) | None, Field(default=None, description=said)
    if get_origin(kind) is Literal:
        return bounded, Field(default=one.info.default)
    return _told_apart(bounded), Field(default="auto")


def _or_auto(kind: Any) -> Any:
    """Returns a type with "auto" in it so that a fault names the field, and not a member of the union."""
    members = get_args(kind)
    if len(members) != 2 or members[1] != Literal["auto"]:
        return kind
    return _told_apart(members[0], AUTO_SWITCH if members[0] is bool else AUTO)


def _told_apart(other: Any, text: str = AUTO) -> Any:
    """Returns the union of "auto" and another type, which are told apart by whether a text is given."""

    def tag(value: Any) -> str:
        return text if isinstance(value, str) else OR_AUTO

    return Annotated[
        Annotated[Literal["auto"], Tag(text)] | Annotated[other, Tag(OR_AUTO)], Discriminator(tag)
    ]


def first_sentence(info: FieldInfo) -> str:
    """What a field means, in one sentence: the first of its docstring."""
    text = " ".join((info.description or "").split())
    sentence, dot, _ = text.partition(". ")
    return sentence + "." if dot else text


def shown(config: type[BaseModel], method: Method, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a job shows of its stored config, under the names of requests.

    It leaves out what older jobs lack, what this run does not read, and "auto", which the worker decides.
    """
    return {
        one.name: values[one.field]
        for one in settable(config, method)
        if values.get(one.field, "auto") != "auto" and is_read(one.mark, values)
    }


def is_read(mark: Hyperparameter, values: Mapping[str, Any]) -> bool:
    """Whether a run with these values reads it."""
    if mark.algorithms and values["algorithm"] not in mark.algorithms:
        return False
    return not mark.of_adapter or values["adapter"] == "lora"
