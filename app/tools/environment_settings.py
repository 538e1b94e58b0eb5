"""Reads which environments an operator has installed: CHERRY_ENVIRONMENTS."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator


class EnvironmentEntry(BaseModel):
    """An environment that projects may name: code of the operator's choice, in a process of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    load: str | None = Field(default=None, pattern=r"^.+:[A-Za-z_]\w*$")
    """What makes it: `package.module:Factory`, or `/folder/file.py:Factory`."""
    verifiers: str | None = Field(default=None, min_length=1)
    """In place of `load`: the id of an environment of the package `verifiers`, as `load_environment` takes
    it."""
    python: str | None = Field(default=None, min_length=1)
    """The Python that has it installed, such as `/srv/shop/bin/python`; None for the worker's own."""
    description: str = ""
    """A sentence for those who choose one."""
    args: dict[str, Any] = {}  # noqa: RUF012
    """What the factory is called with."""
    job_args: frozenset[str] = frozenset()
    """Names of arguments that a job may give, in the place of those of `args`. An argument that says where
    something is sent may give away what `env` holds."""
    env: dict[str, SecretStr] = {}  # noqa: RUF012
    """Environment variables of its process, which sees none of the worker's but a few like PATH."""
    projects: frozenset[str] | None = None
    """Projects whose jobs may name it; None for all."""
    start_seconds: float = Field(default=120.0, gt=0, le=3600)
    """How long its process may take until it is ready."""
    seconds: float = Field(default=120.0, gt=0, le=3600)
    """How long one of its replies may take."""
    memory_mb: int = Field(default=4096, ge=64)
    """Private memory of each of its processes, in MiB."""
    concurrency: int = Field(default=64, ge=1, le=1024)
    """Replies asked for at the same time, in each training process."""

    @model_validator(mode="after")
    def _one_source(self) -> EnvironmentEntry:
        if (self.load is None) == (self.verifiers is None):
            raise ValueError("give either load or verifiers")
        return self

    def is_for(self, project_id: str) -> bool:
        """Tells whether jobs of a project may name it."""
        return self.projects is None or project_id in self.projects


EnvironmentTable = dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")], EnvironmentEntry]
