"""The hyperparameters of a method as the form shows them: what each means, and what it comes to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import ValidationError

from app.dashboard.create.rows import Look
from app.jobs.methods import DpoHyperparameters, Hyperparameters, SupervisedHyperparameters
from app.models.models import Model
from methods.documented import values
from methods.hold_out import n_held_out
from methods.hyperparameters import Declared, Facts, Method, first_sentence, settable
from methods.model_files.configs import CONFIG
from methods.model_files.glance import INNER, at_a_glance
from methods.resolve import ConfigImpossible, resolve_train, resolve_tuning
from methods.run_config import RequestOnly
from methods.train_config import TrainConfig
from methods.tune_config import TuneConfig

WIDTHS = ("hidden_size", "n_embd", "d_model")
"""What configs call the width of a model."""
USUAL = (
    "n_epochs",
    "batch_size",
    "learning_rate_multiplier",
    "beta",
    "group_size",
    "max_completion_tokens",
    "eval_interval",
    "eval_samples",
    "reasoning_effort",
    "algorithm",
)
"""Those that are shown at once; the others are folded in. Chosen by what published jobs set."""
REQUESTS = {
    "reinforcement": Hyperparameters,
    "supervised": SupervisedHyperparameters,
    "dpo": DpoHyperparameters,
}
PROMPT_TOKENS = 256
"""A prompt has no more tokens than its line has bytes, and so many that the chat template adds."""


class Number(NamedTuple):
    """One hyperparameter in the form."""

    name: str
    sentence: str
    takes: str
    choices: tuple[str, ...]
    left_out: str
    """What it comes to where it is left out, as far as that is known."""


class Resolved(NamedTuple):
    """What a job would run with.

    Attributes:
        values: by the name in a request.
        steps: updates of the whole job, unless something ends it early.
        n_train: rows that are trained on.
        held_out: training rows that are held out for validation.
    """

    values: Mapping[str, Any]
    steps: int
    n_train: int
    held_out: int


def config_of(method: str) -> type[TrainConfig] | type[TuneConfig]:
    """Returns the config that a method's runs have."""
    return TrainConfig if method == "reinforcement" else TuneConfig


def numbers(method: Method, resolved: Resolved | None) -> tuple[list[Number], list[Number]]:
    """Returns the hyperparameters of a method: those that are often set, and the others."""
    declared = {
        one.name: one for config in (RequestOnly, config_of(method)) for one in settable(config, method)
    }
    shown = {name: _number(one, resolved) for name, one in declared.items()}
    usual = [shown[name] for name in USUAL if name in shown]
    return usual, [one for name, one in shown.items() if name not in USUAL]


def _number(one: Declared, resolved: Resolved | None) -> Number:
    openais = one.mark.is_openais
    if resolved is not None and one.name in resolved.values:
        left_out = as_shown(resolved.values[one.name])
    else:
        left_out = one.mark.left_out.replace("`", "").removeprefix("is ") or _default(one)
    takes = values(one).replace("`", "") + (
        " or auto" if openais and get_origin(_kind(one)) is not Literal else ""
    )
    return Number(one.name, first_sentence(one.info), takes, _choices(_kind(one)), left_out)


def as_shown(value: Any) -> str:
    """Returns a value as people read it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.3g}"
    if value is None or value == () or value == {}:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def _default(one: Declared) -> str:
    default = one.info.get_default()
    return "" if default is None or "Undefined" in type(default).__name__ else as_shown(default)


def _kind(one: Declared) -> Any:
    kind = one.mark.wire or one.info.annotation
    if get_origin(kind) in (Union, UnionType):
        kind = next(inner for inner in get_args(kind) if inner is not type(None))
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _choices(kind: Any) -> tuple[str, ...]:
    if kind is bool:
        return ("true", "false")
    return tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else ()


def resolve(
    method: Method,
    asked: Mapping[str, Any],
    model: Model | None,
    train: Look | None,
    valid: Look | None,
    resources: Mapping[str, int] | None = None,
) -> Resolved | None:
    """Returns what "auto" comes to; None where model, file or a number do not let it be known.

    Whether the model thinks, and how many tokens its longest prompt has, is found out by the worker; a line's
    bytes bound the tokens here.
    """
    if model is None or train is None or train.wrong or not train.is_whole or not (width := width_of(model)):
        return None
    glance = at_a_glance(Path(model.folder or ""))
    context = (glance.context if glance else None) or PROMPT_TOKENS
    facts = Facts(
        width,
        context,
        longest_prompt=min(train.longest + PROMPT_TOKENS, context // 2),
        n_train=train.n_rows,
        n_valid=valid.n_rows if valid else 0,
    )
    try:
        given = REQUESTS[method].model_validate(asked).model_dump(exclude_none=True)
        block: Any = {"type": method, method: {"hyperparameters": given}}
        config = _config(method, block, facts, resources)
    except (ValidationError, ConfigImpossible):
        return None
    share = config.validation_split if isinstance(config, TrainConfig) else 0.0
    held = n_held_out(facts.n_train, share)
    found = {one.name: getattr(config, one.field) for one in settable(type(config), method)}
    n_train = facts.n_train - held
    return Resolved(found, config.job_steps(n_train), n_train, held)


def _config(
    method: Method, block: Mapping[str, Any], facts: Facts, resources: Mapping[str, int] | None
) -> TrainConfig | TuneConfig:
    if method == "reinforcement":
        return resolve_train(block, facts, model="", model_path="", seed=0, resources=resources)
    return resolve_tuning(block, facts, model="", model_path="", seed=0)


def width_of(model: Model) -> int | None:
    """Returns the width of a base model's states, as its config says; None where it does not."""
    try:
        config = json.loads((Path(model.folder or "") / CONFIG).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    inner = config.get(INNER)
    parts = [config, inner if isinstance(inner, dict) else {}]
    found = (part.get(name) for part in parts for name in WIDTHS)
    return next((value for value in found if isinstance(value, int)), None)
