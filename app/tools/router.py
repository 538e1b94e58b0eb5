"""Serves /v1/fine_tuning/environments."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from app.http.transaction import CurrentCaller, KeptRoute
from app.pagination import Listed
from app.tools import environments

router = APIRouter(prefix="/v1/fine_tuning/environments", tags=["fine-tuning"], route_class=KeptRoute)


class EnvironmentOut(BaseModel):
    """An environment that jobs of the caller's project may name."""

    object: Literal["fine_tuning.environment"] = "fine_tuning.environment"
    id: str
    description: str
    job_args: list[str]
    """Names of the arguments that a job may give it."""


class EnvironmentList(Listed[EnvironmentOut]):
    pass


@router.get("", openapi_extra={"x-cherry": True})
def list_environments(caller: CurrentCaller) -> EnvironmentList:
    """The environments that the operator has installed, by name."""
    found = [
        EnvironmentOut(id=name, description=entry.description, job_args=sorted(entry.job_args))
        for name, entry in environments.usable(caller.project_id).items()
    ]
    return EnvironmentList.holding(found, has_more=False)
