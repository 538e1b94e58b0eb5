"""Reads the settings that are tables: of judges, their keys, the model of embeddings, and environments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

ANY_MODEL = "*"

Reply = Literal["auto", "json_schema", "json_object", "text"]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Connection(_Entry):
    """A server that speaks OpenAI's API, and how it is called."""

    base_url: str = Field(min_length=1)
    """With its path: https://api.openai.com/v1, http://127.0.0.1:8001/v1."""
    model: str | None = None
    """Name of the model over there; None for the name that the grader gives."""
    key: str | None = None
    """Name of an entry of CHERRY_JUDGE_KEYS; None for servers that want no key."""
    concurrency: int = Field(default=32, ge=1, le=1024)
    """Calls under way at the same time, in each process."""
    calls_per_minute: float | None = Field(default=None, gt=0, le=1_000_000)
    """The most calls a minute of all processes of the service together; None for no limit of ours."""
    timeout: float = Field(default=120.0, gt=0, le=3600)
    """Seconds that one call may take."""
    retries: int = Field(default=4, ge=0, le=20)
    """Further calls after one that failed by the server's fault or was told to wait."""


class JudgeEntry(Connection):
    """A judge."""

    reasoning: bool | None = None
    """True refuses temperature and top_p in graders, false refuses reasoning_effort, as OpenAI does for its
    own models; None passes on both, and what the server says to it."""
    media: frozenset[Literal["image", "audio"]] = frozenset()
    """What it takes beside text."""
    reply: Reply = "auto"
    """How it is made to reply in JSON. "auto" asks for json_schema, for less if the server refuses that."""
    max_tokens_name: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    """What the server calls the limit of the reply."""
    cache: bool = True
    """Whether the same question of the same project is asked only once."""


class EmbeddingEntry(Connection):
    """The model behind `cosine`."""

    model: str = "text-embedding-3-large"


class KeyEntry(_Entry):
    """A key to somebody's API."""

    key: SecretStr | None = None
    key_file: Path | None = None
    """File with the key, in place of `key`; read when it is needed."""
    hosts: frozenset[str] = frozenset()
    """Hosts that it is sent to for graders with a `base_url` of their own; otherwise a grader could send
    the key anywhere."""
    projects: frozenset[str] | None = None
    """Projects whose graders may name it; None for all."""

    @model_validator(mode="after")
    def _one_key(self) -> KeyEntry:
        if (self.key is None) == (self.key_file is None):
            raise ValueError("give either key or key_file")
        return self

    def read(self) -> str:
        """Returns the key. Raises `OSError`."""
        if self.key_file is not None:
            return self.key_file.read_text("utf-8").strip()
        return self.key.get_secret_value() if self.key else ""


class EnvironmentEntry(_Entry):
    """An environment that projects may name: code of the operator's choice, in a process of its own."""

    load: str | None = Field(default=None, pattern=r"^.+:[A-Za-z_]\w*$")
    """What makes it: `package.module:Factory`, or `/folder/file.py:Factory`."""
    verifiers: str | None = Field(default=None, min_length=1)
    """In place of `load`: the id of an environment of the package `verifiers`, as `load_environment` takes
    it."""
    python: str | None = Field(default=None, min_length=1)
    """The Python that has it installed, such as `/srv/shop/bin/python`; None for the worker's own."""
    description: str = ""
    """A sentence for those who choose one."""
    args: dict[str, Any] = {}
    """What the factory is called with."""
    job_args: frozenset[str] = frozenset()
    """Names of arguments that a job may give, in the place of those of `args`. An argument that says where
    something is sent may give away what `env` holds."""
    env: dict[str, SecretStr] = {}
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


class VllmEntry(_Entry):
    """A vLLM server that does the rollouts of jobs on a base model."""

    url: str = Field(pattern=r"^https?://")
    """Where it listens, without a path: http://127.0.0.1:8100."""
    model: str | None = None
    """The base model's name over there; None for the job's name of it, or its folder."""
    key: SecretStr | None = None
    """What the server was given as VLLM_API_KEY."""
    adapters: Path = Path("/dev/shm/cherry-rollouts")  # noqa: S108  # a folder of ours, 0700
    """Folder for adapters, which the server must see under the same path."""
    shares_gpu: bool = False
    """Whether it is on the trainer's GPU: then it sleeps while the policy is updated and measured."""
    whole_weights: bool = False
    """Whether jobs that train every weight may load theirs into it, one job at a time. It must run in
    vLLM's development mode, at a loopback address."""
    concurrency: int = Field(default=256, ge=1, le=4096)
    """Completions asked for at the same time, in each training process."""
    answer_seconds: float = Field(default=600.0, gt=0, le=3600)
    """How long may pass without any completion that ends before the server counts as hung."""


def read_json(value: object) -> object:
    """Reads a setting that is JSON or names a JSON file."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text and not text.startswith("{"):
        try:
            text = Path(text).read_text("utf-8")
        except OSError as error:
            raise ValueError(f"neither JSON nor a file that can be read: {error.strerror}") from None
    return json.loads(text) if text else {}


def read_json_or_none(value: object) -> object:
    return read_json(value) or None


JudgeTable = dict[str, JudgeEntry]
VllmTable = dict[str, VllmEntry]
EnvironmentTable = dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")], EnvironmentEntry]
KeyTable = dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")], KeyEntry]


def vllm_for(table: VllmTable, model: str) -> VllmEntry | None:
    """Returns the server for a base model of that name, else the one for every name."""
    return table.get(model) or table.get(ANY_MODEL)


def entry_for(judges: JudgeTable, model: str) -> JudgeEntry | None:
    """Returns the judge of that name, else the one that serves every name."""
    return judges.get(model) or judges.get(ANY_MODEL)


def known_names(judges: JudgeTable) -> list[str]:
    return sorted(name for name in judges if name != ANY_MODEL)
