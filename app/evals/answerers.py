"""Who answers in a run: a model of this service, or a model of another server that speaks OpenAI's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from sqlalchemy.orm import Session

from app.errors import BadRequest, NotFound, Unavailable
from app.evals.data_sources import PARAM
from app.grading.services import judges
from app.models import service as models
from app.settings import Settings
from app.table_settings import entry_for, known_names
from graders import GraderInvalid
from graders.services import Target

NO_SAMPLER = (
    "This service runs no models: its operator starts a sampler (docs/serving.md) or names another server"
    " in CHERRY_JUDGES."
)


class Answerer(NamedTuple):
    """Who answers."""

    kind: Literal["own", "other"]
    model: str
    """The name of the model itself."""
    target: Target
    """How another server is named."""


def find(db: Session, project_id: str, source: Mapping[str, Any], settings: Settings) -> Answerer | None:
    """Returns who answers to a checked data source; None where answers are given.

    A name means what it means in a chat, then a server of CHERRY_JUDGES. Raises `BadRequest` or `NotFound`,
    or `Unavailable` where the service runs no models.
    """
    name = source.get("model")
    if name is None:
        return None
    target = Target(name, source.get("base_url"), source.get("api_key_name"))
    if target.base_url is not None:
        _check_address(project_id, target)
        return Answerer("other", name, target)
    if (own := models.find(db, project_id, name)) is not None:
        if not settings.sampler_url:
            raise Unavailable(NO_SAMPLER, code="sampler_unavailable", headers={"x-should-retry": "false"})
        return Answerer("own", own.name, target)
    if entry_for(settings.judges, name) is not None:
        return Answerer("other", name, target)
    raise _unknown(db, project_id, name, settings)


def _check_address(project_id: str, target: Target) -> None:
    try:
        judges().check(project_id, target, {}, frozenset())
    except GraderInvalid as fault:
        at = f"{PARAM}.{fault.param}" if fault.param else PARAM
        message = fault.message.replace(f"'{fault.param}'", f"'{at}'") if fault.param else fault.message
        raise BadRequest(message, param=at, code=fault.code) from None


def _unknown(db: Session, project_id: str, name: str, settings: Settings) -> NotFound:
    others = known_names(settings.judges)
    there = models.there_are(db, project_id)
    more = f" Of other servers there are: {models.listed(others)} (CHERRY_JUDGES)." if others else ""
    message = f"The model '{name}' does not exist or you do not have access to it. {there}{more}"
    return NotFound(message, param=f"{PARAM}.model", code="model_not_found")
