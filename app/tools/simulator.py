"""Checks the simulated user of a job, and says which model plays it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.errors import BadRequest
from app.grading.services import grader_services
from app.tools.schemas import UserSimulator
from app.validation_errors import read_as
from graders.judges.spec import SamplingParams
from graders.services import Target, required_judge
from graders.template import Template
from graders.types import GraderInvalid

ENVIRONMENT = "method.reinforcement.environment"


def as_stored(raw: Any, project_id: str) -> dict[str, Any]:
    """Returns the simulator of a request as a job keeps it. Raises `BadRequest`."""
    kept = read_as(UserSimulator, raw, ENVIRONMENT).model_dump(exclude_none=True)
    if Template.parse(kept["instructions"]).reads_sample:
        at = f"{ENVIRONMENT}.instructions"
        message = f"Invalid value for '{at}': a user is told of its row alone: use {{{{item.key}}}}."
        raise BadRequest(message, param=at, code="invalid_value")
    if "api_key_name" in kept and "base_url" not in kept:
        at = f"{ENVIRONMENT}.api_key_name"
        message = f"Invalid value for '{at}': it is for a model at a 'base_url', and there is none."
        raise BadRequest(message, param=at, code="invalid_value")
    try:
        required_judge(grader_services(project_id), "user_simulator").check(*asked_of(kept), frozenset())
    except GraderInvalid as fault:
        at = f"{ENVIRONMENT}.{fault.param}"
        raise BadRequest(fault.message, param=at, code=fault.code) from None
    return kept


def asked_of(simulator: Mapping[str, Any]) -> tuple[Target, dict[str, Any]]:
    """Returns the model that plays the user, and how it samples, out of what a job keeps."""
    target = Target(simulator["model"], simulator.get("base_url"), simulator.get("api_key_name"))
    return target, SamplingParams(**simulator.get("sampling_params", {})).for_chat()
