"""What a request for a job says, checked as far as that needs no database, in the form that jobs keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from app.errors import BadRequest, Refusals
from app.grading import service as grading
from app.jobs.methods import (
    DpoHyperparameters,
    DpoMethod,
    Hyperparameters,
    Reinforcement,
    ReinforcementMethod,
    SupervisedHyperparameters,
    SupervisedMethod,
)
from app.jobs.schemas import JobCreate, Resources
from app.tools import environments
from app.tools import service as tools
from app.validation_errors import read_as
from methods import response_format
from methods.model_files import precision as base_precision
from methods.resolve import SPLIT_BESIDE_FILE, VALIDATION_SPLIT
from methods.tools import DEFAULT_EPISODE_STEPS

GRADER = "method.reinforcement.grader"
GOLD_GRADER = "method.reinforcement.gold_grader"
RESPONSE_FORMAT = "method.reinforcement.response_format"
MAX_EPISODE_STEPS = "method.reinforcement.max_episode_steps"
TOOLS = "method.reinforcement.tools"
CHECKED = ("grader", "gold_grader", "response_format", "tools", "environment", "max_episode_steps")


def checked_method(request: JobCreate, project_id: str) -> dict[str, Any]:
    """The method with its defaults and grader names filled in. Raises `BadRequest`."""
    if request.method is None:
        deprecated = read_as(SupervisedHyperparameters, request.hyperparameters, "hyperparameters")
        return _tuned("supervised", deprecated, "hyperparameters")
    if isinstance(request.method, SupervisedMethod):
        supervised = request.method.supervised and request.method.supervised.hyperparameters
        return _tuned("supervised", supervised or SupervisedHyperparameters())
    if isinstance(request.method, DpoMethod):
        dpo = request.method.dpo and request.method.dpo.hyperparameters
        return _tuned("dpo", dpo or DpoHyperparameters())
    assert isinstance(request.method, ReinforcementMethod), "an unknown method has no valid type"
    block = request.method.reinforcement
    refusals = Refusals()
    kept = checked_block(block.model_dump(include=set(CHECKED)), project_id, refusals)
    kept["hyperparameters"] = _hyperparameters(block)
    with refusals:
        _check_hold_out(kept["hyperparameters"], request.validation_file)
    with refusals:
        _check_precision(kept["hyperparameters"], "method.reinforcement.hyperparameters")
    refusals.raise_any()
    return {"type": "reinforcement", "reinforcement": kept}


def checked_block(block: Mapping[str, Any], project_id: str, refusals: Refusals) -> dict[str, Any]:
    """What jobs keep of graders and response format, as far as that is right."""
    kept: dict[str, Any] = {}
    for name, param in (("grader", GRADER), ("gold_grader", GOLD_GRADER)):
        if isinstance(block.get(name), dict):
            with refusals:
                kept[name] = grading.as_stored(block[name], param, project_id)
    with refusals:
        if (constraint := checked_response_format(block.get("response_format"))) is not None:
            kept["response_format"] = constraint
    with refusals:
        kept |= _checked_episodes(block, kept, project_id)
        environments.check_graders(kept)
    return kept


def _checked_episodes(block: Mapping[str, Any], kept: Mapping[str, Any], project_id: str) -> dict[str, Any]:
    """Who replies in episodes and what bounds them, as a job keeps it. Raises `BadRequest`."""
    steps = block.get("max_episode_steps")
    if not block.get("tools") and block.get("environment") is None:
        if steps is None:
            return {}
        message = (
            f"'{MAX_EPISODE_STEPS}' bounds the turns of a job with tools or an environment, and this one has"
            " neither."
        )
        raise BadRequest(message, param=MAX_EPISODE_STEPS, code="unsupported_parameter")
    if kept.get("response_format", {"type": "text"})["type"] != "text":
        message = (
            f"'{RESPONSE_FORMAT}' holds every completion to a form, which leaves no room for calls of tools"
            " or other turns: leave one of the two out."
        )
        raise BadRequest(message, param=RESPONSE_FORMAT, code="unsupported_parameter")
    found: dict[str, Any] = {"max_episode_steps": DEFAULT_EPISODE_STEPS if steps is None else steps}
    refusals = Refusals()
    with refusals:
        if block.get("tools"):
            found["tools"] = tools.as_stored(block["tools"], project_id)
    with refusals:
        if block.get("environment") is not None:
            found["environment"] = environments.as_stored(
                block["environment"], project_id, has_tools=bool(block.get("tools"))
            )
    refusals.raise_any()
    return found


def checked_response_format(asked: Any, at: str = RESPONSE_FORMAT) -> dict[str, Any] | None:
    """The response format as it came, if one was asked for. Raises `BadRequest` about `at`."""
    if asked is None:
        return None
    try:
        return response_format.checked(asked)
    except response_format.ResponseFormatInvalid as fault:
        below = f"{at}.{fault.param}" if fault.param else at
        message = fault.message.replace(f"'{fault.param or 'response_format'}'", f"'{below}'")
        raise BadRequest(message, param=below, code=fault.code) from None


def checked_integrations(request: JobCreate) -> list[dict[str, Any]] | None:
    """The integrations as a job keeps and shows them: only what was given."""
    if not request.integrations:
        return None
    return [integration.model_dump(exclude_none=True) for integration in request.integrations]


def checked_resources(
    asked: Resources | None,
    max_processes: int,
    method: str = "reinforcement",
    max_gpus: int | None = None,
) -> dict[str, int] | None:
    """The machine that a job asks for. Raises `BadRequest` for more than operator or method allow.

    `max_gpus` is None where a worker somewhere may have any number.
    """
    if asked is None:
        return None
    given: dict[str, int] = asked.model_dump(exclude_none=True)
    if len(given) != 1:
        message = "Invalid value for 'resources': give either 'gpus' or 'processes'."
        raise BadRequest(message, param="resources", code="invalid_value")
    for name, wanted in given.items():
        most = max_gpus if name == "gpus" else max_processes
        if most is not None and wanted > most:
            message = (
                f"Invalid value for 'resources.{name}': this service allows at most {most}, "
                f"but got {wanted} instead."
            )
            raise BadRequest(message, param=f"resources.{name}", code="integer_above_max_value")
    if method != "reinforcement" and max(given.values()) > 1:
        name = "gpus" if "gpus" in given else "processes"
        message = f"The method '{method}' trains in one process. Leave 'resources.{name}' out, or ask for 1."
        raise BadRequest(message, param=f"resources.{name}", code="unsupported_parameter")
    return given


def check_sharding(method: Mapping[str, Any], resources: Mapping[str, int] | None) -> None:
    """Raises `BadRequest` where weights are to be split over processes and the job has just one."""
    block = method.get(method["type"]) or {}
    asked = (block.get("hyperparameters") or {}).get("sharding")
    if asked == "fsdp" and max((resources or {"gpus": 1}).values()) == 1:
        param = f"method.{method['type']}.hyperparameters.sharding"
        message = (
            f"Invalid value for '{param}': 'fsdp' splits a model over the processes of a job, and this job"
            " has one. Ask for several with 'resources', or leave 'sharding' out."
        )
        raise BadRequest(message, param=param, code="invalid_value")


def _tuned(method: str, hyperparameters: BaseModel, at: str | None = None) -> dict[str, Any]:
    asked = hyperparameters.model_dump(exclude_none=True)
    _check_precision(asked, at or f"method.{method}.hyperparameters")
    return {"type": method, method: {"hyperparameters": asked}}


def _hyperparameters(block: Reinforcement) -> dict[str, Any]:
    """OpenAI's always, "auto" or not; ours only if they were given."""
    return (block.hyperparameters or Hyperparameters()).model_dump(exclude_none=True)


def _check_precision(asked: Mapping[str, Any], at: str) -> None:
    """Raises `BadRequest` where the precision of the base does not go with the rest, or cannot be had here.

    Where this process could not train at all, the worker's validation finds out.
    """
    if (found := base_precision.refusal(asked)) is not None:
        raise BadRequest(found.message, param=f"{at}.{found.name}", code="unsupported_parameter")
    lacks = base_precision.trains_here() and not base_precision.is_installed()
    if base_precision.is_quantised(asked) and lacks:
        message = base_precision.NOT_INSTALLED.format(precision=asked["base_precision"])
        raise BadRequest(message, param=f"{at}.base_precision", code="unsupported_parameter")


def _check_hold_out(asked: dict[str, Any], validation_file: str | None) -> None:
    """Raises `BadRequest` where rows are to be held out beside a file of such rows."""
    if asked.get("validation_split") and validation_file is not None:
        raise BadRequest(SPLIT_BESIDE_FILE, param=VALIDATION_SPLIT, code="invalid_value")
