"""From a job's method and what validation found to a whole config, and from there to what the job shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from methods.hold_out import n_held_out
from methods.hyperparameters import Facts, Known, Method, settable, shown
from methods.run_config import RequestOnly
from methods.train_config import TrainConfig
from methods.tune_config import TuneConfig, TuneMethod

MAX_COMPLETION = "method.reinforcement.hyperparameters.max_completion_tokens"
VALIDATION_SPLIT = "method.reinforcement.hyperparameters.validation_split"
SPLIT_BESIDE_FILE = (
    "validation_split holds out training rows, but the job has a validation_file: leave one out."
)


class ConfigImpossible(Exception):
    """A job cannot run with these files and hyperparameters. `param` is the request's field; `is_of_length`
    says that the longest prompt is too long."""

    def __init__(self, message: str, param: str, *, is_of_length: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.is_of_length = is_of_length


def resolve_train(
    job_method: Mapping[str, Any],
    facts: Facts,
    *,
    model: str,
    model_path: str,
    seed: int,
    resources: Mapping[str, int] | None = None,
    grading: Mapping[str, Any] | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """Returns the reinforcement run that a job's method and resources mean for this model and these files.

    `grading` holds fields of the config that follow from grader and settings, where the job does not say
    otherwise. `template_kwargs` are all that the chat template is rendered with: the job's own, and what the
    effort that it asked for needs. Raises `ConfigImpossible`.
    """
    block = job_method["reinforcement"]
    asked = _asked(block["hyperparameters"])
    if template_kwargs:
        asked["template_kwargs"] = dict(template_kwargs)
    _check_room(asked, facts)
    given = {
        "model": model,
        "model_path": model_path,
        "seed": seed,
        "response_format": _response_format(block),
        "tools": tuple(tool["name"] for tool in block.get("tools", ())),
        "environment": block["environment"]["type"] if "environment" in block else None,
        "max_episode_steps": block.get("max_episode_steps"),
        **(grading or {}),
        **_place(resources or {}),
    }
    facts = _after_hold_out(asked, facts)
    return TrainConfig(**Known(TrainConfig, "reinforcement", asked, given, facts).values())


def resolve_tuning(
    job_method: Mapping[str, Any],
    facts: Facts,
    *,
    model: str,
    model_path: str,
    seed: int,
    device: str | None = None,
) -> TuneConfig:
    """Returns the supervised or dpo run that a job's method means for this model and these files."""
    method: TuneMethod = job_method["type"]
    given = {"method": method, "model": model, "model_path": model_path, "seed": seed}
    if device is not None:
        given["device"] = device
    asked = _asked(job_method[method]["hyperparameters"])
    return TuneConfig(**Known(TuneConfig, method, asked, given, facts).values())


def usual_learning_rate(config: TrainConfig | TuneConfig, hidden_size: int) -> float:
    """Returns the learning rate that "auto" takes for a run of this kind, on a model of this width."""
    method: Method = config.method if isinstance(config, TuneConfig) else "reinforcement"
    facts = Facts(hidden_size, context=1, longest_prompt=0, n_train=1)
    rate: float = Known(type(config), method, {}, {"adapter": config.adapter}, facts)["learning_rate"]
    return rate


def shown_training(requested: Mapping[str, Any], config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns what a reinforcement job shows: as requested, then resolved, under OpenAI's names and ours."""
    if config is None:
        return dict(requested)
    return {**requested, **shown(TrainConfig, "reinforcement", config), **_multipliers(requested)}


def shown_tuning(
    method: TuneMethod, requested: Mapping[str, Any], config: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Returns what a supervised or dpo job shows: as requested, then OpenAI's names resolved."""
    if config is None:
        return dict(requested)
    openais = [one for one in settable(TuneConfig, method) if one.mark.is_openais]
    resolved = {one.name: config[one.field] for one in openais}
    return {**requested, **resolved, **_multipliers(requested)}


def shown_at_top(method: Mapping[str, Any], config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the job's own `hyperparameters`: OpenAI's three of a supervised job, else nothing."""
    if method["type"] != "supervised":
        return {}
    ours = {one.name for one in settable(TuneConfig, "supervised") if not one.mark.is_openais}
    every = shown_tuning("supervised", method["supervised"]["hyperparameters"], config)
    return {name: value for name, value in every.items() if name not in ours}


def _multipliers(requested: Mapping[str, Any]) -> dict[str, Any]:
    """What "auto" means for those that no config keeps."""
    fields = RequestOnly.model_fields
    return {name: info.default for name, info in fields.items() if requested.get(name) == "auto"}


def _asked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters that were given as values."""
    return {name: value for name, value in given.items() if value is not None and value != "auto"}


def _response_format(block: Mapping[str, Any]) -> dict[str, Any] | None:
    asked = block.get("response_format")
    return None if asked is None or asked["type"] == "text" else dict(asked)


def _place(resources: Mapping[str, int]) -> dict[str, Any]:
    """Where a run computes, and in how many processes; by default one, on a GPU if there is one."""
    if "gpus" in resources:
        return {"processes": resources["gpus"], "device": "cuda"}
    if "processes" in resources:
        return {"processes": resources["processes"], "device": "cpu"}
    return {}


def _after_hold_out(asked: dict[str, Any], facts: Facts) -> Facts:
    """Returns the facts of what is trained on and held out, and writes the share down in `asked`.

    Raises `ConfigImpossible` for a share that cannot be held out.
    """
    share = Known(TrainConfig, "reinforcement", asked, {}, facts)["validation_split"]
    asked["validation_split"] = share
    if not share:
        return facts
    if facts.n_valid:
        raise ConfigImpossible(SPLIT_BESIDE_FILE, VALIDATION_SPLIT)
    held = n_held_out(facts.n_train, share)
    if held > facts.n_train / 2:
        message = (
            f"validation_split holds out at least {held} rows, more than half of the training file's"
            f" {facts.n_train}. Give more rows, a validation_file, or validation_split 0."
        )
        raise ConfigImpossible(message, VALIDATION_SPLIT)
    return facts._replace(n_train=facts.n_train - held, n_valid=held)


def _check_room(asked: Mapping[str, Any], facts: Facts) -> None:
    """Raises `ConfigImpossible` if the longest prompt leaves too little of the model's context."""
    longest = facts.longest_prompt
    room = facts.context - longest
    if room < 1:
        message = f"The longest prompt has {longest} tokens, but the model reads {facts.context} at most."
        raise ConfigImpossible(message, "training_file", is_of_length=True)
    wanted = asked.get("max_completion_tokens")
    if wanted is not None and wanted > room:
        message = (
            f"max_completion_tokens is {wanted}, but the longest prompt ({longest} tokens) leaves "
            f"{room} of the model's {facts.context}."
        )
        raise ConfigImpossible(message, MAX_COMPLETION, is_of_length=True)
