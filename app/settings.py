"""Holds what an operator may set. It is built once per process and passed down."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from app.addresses import Network, network_of
from app.table_settings import (
    EmbeddingEntry,
    EnvironmentTable,
    JudgeTable,
    KeyTable,
    VllmTable,
    read_json,
    read_json_or_none,
)
from methods.prices import Prices


def _split(value: object) -> object:
    """Reads `a, b` as a list."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _network(entry: str) -> str:
    if network_of(entry) is None:
        raise ValueError(f"'{entry}' is no address or network")
    return entry


def _host_or_network(entry: str) -> str:
    if network_of(entry) is None and not HOST.fullmatch(entry):
        raise ValueError(f"'{entry}' is no host, address or network")
    return entry


COPIES = "sampler"
"""The folder of `data_dir` where samplers keep copies of remote models while they load them."""
DeviceName = Annotated[str, Field(pattern=r"^(\d+|GPU-[0-9A-Za-z-]+|MIG-[0-9A-Za-z/-]+|cpu(:\d+)?)$")]
HOST = re.compile(r"(?!-)[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
Names = Annotated[
    tuple[Annotated[str, AfterValidator(_host_or_network)], ...], NoDecode, BeforeValidator(_split)
]

Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], NoDecode, BeforeValidator(_split)]


PREFIX = "CHERRY_"
NO_SETTINGS = {
    "CHERRY_URL": "the command line",
    "CHERRY_API_KEY": "the command line",
    "CHERRY_MODELS": "docker-compose.yml",
    "CHERRY_SHARED": "the tests",
    "CHERRY_HELD_DEVICES": "trainings, from their worker",
}
"""Other names of ours, by who reads them. tests/app/test_settings.py holds that these are all."""
FOR_TESTS = ("CHERRY_TEST_", "CHERRY_FUZZ_", "CHERRY_HOSTILE_")
"""What begins so says how much tests and benchmarks try, and means nothing to a service."""
OF_KUBERNETES = re.compile(r"CHERRY_\w*(SERVICE_HOST|SERVICE_PORT\w*|PORT_\d+_(TCP|UDP)\w*)")
"""What Kubernetes tells containers of services whose names begin with `cherry`, beside `..._PORT=tcp://...`."""


class SettingUnknown(ValueError):
    """A `CHERRY_` name is no setting; the text says which it may have been."""


class Settings(BaseSettings):
    """Read from the environment (prefix `CHERRY_`) and `.env`; unknown `CHERRY_` keys are refused."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True)

    database_url: str = Field(validation_alias=AliasChoices("DATABASE_URL", "CHERRY_DATABASE_URL"))
    """Postgres, such as postgresql://user:password@host/name. `cherry up` sets its own."""
    database_connect_limit: timedelta = timedelta(seconds=3)
    """How long Postgres may take to accept a connection (libpq takes whole seconds, two at least)."""
    database_statement_limit: timedelta = timedelta(seconds=6)
    """Longest time that a statement of the API may take; whoever asked then gets a 503 that says when to come
    again."""
    database_work_limit: timedelta = timedelta(minutes=2)
    """The same for workers, trainings, the sampler and the relay, which can wait longer. The command line has
    no limit: migrations take as long as they take."""
    broker_url: str
    """Celery broker: redis://, rediss://, redis+socket:// or filesystem://FOLDER."""
    data_dir: Path = Path(".cherry")
    """Folder for working files of this machine (run folders, copies of models, spooled uploads)."""
    storage_url: str = ""
    """Where artefacts live: empty for `data_dir`/storage, else file:///folder or s3://bucket/prefix."""

    host: str = "127.0.0.1"
    """Address at which the API listens; 0.0.0.0 for all of this machine."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port at which the API listens; 0 for any that is free."""

    api_processes: int = Field(default=1, ge=1, le=64)
    """Processes of the API on this machine, which share its port."""
    key_cache: timedelta = timedelta(seconds=1)
    """How long an API key that was looked up is taken to be still good; PT0S asks the database each time."""

    max_file_bytes: int = Field(default=512 * 2**20, ge=1)
    """Largest upload to POST /v1/files."""
    max_upload_bytes: int = Field(default=8 * 2**30, ge=1)
    """Largest file that POST /v1/uploads takes in parts."""
    max_project_bytes: int = Field(default=2_500_000_000_000, ge=1)
    """Bytes that the files of one project may have together."""
    least_free_bytes: int = Field(default=256 * 2**20, ge=0)
    """Room that uploads leave free on a disk, and without which `/readyz` says that there is none."""
    max_json_bytes: int = Field(default=2**20, ge=1024)
    """Largest JSON request body."""
    max_line_bytes: int = Field(default=4 * 2**20, ge=1024)
    """Longest line of a data set."""
    requests_per_minute: int = Field(default=0, ge=0)
    """Requests that one API key may make per minute; 0 for no limit."""
    max_active_jobs: int = Field(default=100, ge=1)
    """Unfinished jobs a project may have."""
    max_connections_per_address: int = Field(default=512, ge=1)
    """Connections that one address (of IPv6: one network of 64 bits) may have open in each API process, and
    requests under way, also through trusted proxies."""
    trusted_proxies: Networks = ()
    """Addresses and networks of proxies in front of the API, whose X-Forwarded-For and X-Forwarded-Proto are
    believed. Without any, only those of this machine are."""
    max_followers: int = Field(default=2000, ge=1)
    """Clients that may follow jobs live, in each API process."""
    report_paused_as: Literal["paused", "queued"] = "paused"
    """What the status of a paused job says: OpenAI's published schema does not know `paused`, and a client
    that validates every answer refuses it."""

    secret_key: SecretStr = SecretStr("")
    """Encrypts what must be kept readable, such as the signing secrets of webhooks: 32 characters or more,
    the same for all processes. `cherry up` makes its own. Without it such things are refused."""

    outbound_allow: Names = ()
    """Hosts, addresses and networks that webhooks and other URLs of users may name although they are not
    public, or on other ports: `judge.internal,10.1.0.0/16`."""
    outbound_allow_http: bool = False
    """Whether URLs of users may be http://."""
    outbound_ports: Annotated[tuple[int, ...], NoDecode, BeforeValidator(_split)] = (443,)
    """Ports that URLs of users may have, such as `443,8443`."""
    outbound_ca_file: Path | None = None
    """Certificates (PEM) to trust beside the system's when such a URL is called."""

    judges: Annotated[JudgeTable, NoDecode, BeforeValidator(read_json)] = Field(default_factory=dict)
    """Judge models by the names that graders give them, "*" for every other name; JSON, or a JSON file:
    `{"gpt-4.1-mini": {"base_url": "https://api.openai.com/v1", "key": "openai"}}`. Its fields:
    app/table_settings.py, docs/judges.md."""
    judge_keys: Annotated[KeyTable, NoDecode, BeforeValidator(read_json)] = Field(default_factory=dict)
    """Keys of judges by name; JSON, or a JSON file: `{"openai": {"key": "sk-..."}}`."""
    judge_cache_bytes: int = Field(default=64 * 2**20, ge=0)
    """Memory for judges' replies and embeddings, in each process; 0 keeps none."""
    embeddings: Annotated[EmbeddingEntry | None, NoDecode, BeforeValidator(read_json_or_none)] = None
    """The model behind the metric `cosine`: `{"base_url": "...", "model": "...", "key": "openai"}`."""
    prices: Annotated[Prices, NoDecode, BeforeValidator(read_json)] = Field(default_factory=Prices)
    """What `max_cost` of a job counts by; JSON, or a JSON file: `{"currency": "USD", "device_hour": 2.5,
    "models": {"gpt-4.1-mini": {"input": 0.4, "cached": 0.1, "output": 1.6}}}`, models by a million tokens."""
    endpoint_concurrency: int = Field(default=32, ge=1, le=1024)
    """Calls to one URL of endpoint graders under way at the same time, in each process."""
    tool_concurrency: int = Field(default=64, ge=1, le=1024)
    """Calls to one URL of tool servers under way at the same time, in each training process."""
    environments: Annotated[EnvironmentTable, NoDecode, BeforeValidator(read_json)] = Field(
        default_factory=dict
    )
    """Environments that jobs may name, each in a process of its own; JSON, or a JSON file: `{"shop":
    {"python": "/srv/shop/bin/python", "load": "shop:Shop"}}`. Its fields: app/table_settings.py,
    docs/environments.md."""
    asking_concurrency: int = Field(default=32, ge=1, le=512)
    """Gradings under way at the same time in a training whose grader asks a judge or an endpoint."""
    grade_failure_limit: float = Field(default=0.5, gt=0, le=1)
    """Share of a step's grades that may fail before the step counts as failed; a job may say otherwise."""
    grade_failure_steps: int = Field(default=3, ge=1, le=1000)
    """Failed steps in a row after which a job fails; a job may say otherwise."""

    judge_down_limit: timedelta = timedelta(minutes=3)
    """How long a judge, grading server or embedding model may answer nobody before the training that needs it
    pauses; at most half of `phase_limit` counts. PT0S does not wait: such grades count as failed, and too
    many fail the job."""

    webhook_timeout: timedelta = timedelta(seconds=10)
    """How long the receiver of a webhook may take to answer, all in all."""
    webhook_first_retry: timedelta = timedelta(seconds=5)
    """Pause after the first failed attempt; doubled after each further one, up to six hours."""
    webhook_retry_for: timedelta = timedelta(hours=72)
    """How long a webhook is tried again before it counts as failed."""

    grader_run_limit: timedelta = timedelta(seconds=150)
    """Longest time that POST /v1/fine_tuning/alpha/graders/run waits for a grade."""
    grader_runs_per_key: int = Field(default=4, ge=1, le=256)
    """Grader runs that one API key may have under way, in each API process."""

    sampler: bool = True
    """Whether `cherry up` runs a sampler of its own, so that models of this service can be asked."""
    sampler_url: str = ""
    """Where a sampler (`cherry sampler`) or a vLLM server listens, such as http://127.0.0.1:8001; `cherry up`
    sets its own."""
    sampler_token: SecretStr = SecretStr("")
    """What the processes of this service show the sampler; `cherry up` makes its own."""
    sampler_models: int = Field(default=2, ge=1, le=64)
    """Base models that the sampler keeps in memory; models tuned by an adapter share their base."""
    sampler_adapters: int = Field(default=16, ge=1, le=1024)
    """Adapters of tuned models that the sampler keeps in memory with each base; each API process has as many
    loaded in a vLLM server."""
    sampler_rows: int = Field(default=64, ge=1, le=1024)
    """Completions of one base that the sampler decodes side by side."""
    sampler_cache_mb: int = Field(default=0, ge=0)
    """Memory for keys and values of each base, in MiB; 0 for a quarter of the machine's, on a GPU 0.7 of
    what is free of the sampler's share."""
    sampler_waiting: int = Field(default=1024, ge=1)
    """Requests that may wait for the sampler before others are turned away."""
    sampler_waiting_per_key: int = Field(default=256, ge=1)
    """The same for the requests of one API key."""
    sampler_share: float = Field(default=0.5, gt=0, le=1)
    """The most of the time that the sampler works while a training runs on its machine (with the same
    `data_dir`); 1 for all of it."""
    sampler_device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the sampler computes. "auto": on a GPU if it sees one."""
    sampler_gpu: str = Field(default="", pattern=r"^(\d+|GPU-[0-9A-Za-z-]+|MIG-[0-9A-Za-z/-]+)?$")
    """The GPU, by number or UUID, that the sampler has for itself and no training takes. Empty: it shares the
    last one with trainings."""
    sampler_gpu_share: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = "auto"
    """The most that the sampler takes of its GPU's memory. "auto": a quarter, or 0.95 of a GPU of its own."""
    trainer_gpu_share: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = "auto"
    """The most that a training takes of each GPU's memory. "auto": what a sampler on the same GPU leaves."""
    sampler_idle: timedelta | Literal["auto"] = "auto"
    """After how long without a request the sampler gives its models' memory back; PT0S: never. "auto": after
    five minutes on a GPU, never on a CPU."""
    completions_kept: timedelta = timedelta(days=30)
    """How long stored chat completions and responses are kept."""

    vllm: Annotated[VllmTable, NoDecode, BeforeValidator(read_json)] = Field(default_factory=dict)
    """vLLM servers that do the rollouts of jobs, by the base model's name, "*" for every other; JSON, or a
    JSON file: `{"qwen3-32b": {"url": "http://127.0.0.1:8100", "key": "..."}}`. Its fields:
    app/table_settings.py, docs/vllm.md."""
    vllm_python: str = ""
    """A Python that has vLLM, with which `cherry up --vllm MODEL` starts a server for that base model."""
    vllm_options: str = ""
    """Further options of that server, as on a command line: `--tensor-parallel-size 4`."""
    vllm_gpus: str = ""
    """GPUs of that server, as CUDA_VISIBLE_DEVICES has them: `1,2,3`. Empty: those of `cherry up`, which it
    shares with trainings, and sleeps while they update."""
    vllm_whole_weights: bool = False
    """Whether that server also does the rollouts of jobs that train every weight. It then runs in vLLM's
    development mode, which lets every user of this machine change its weights."""
    vllm_down_limit: timedelta = timedelta(minutes=10)
    """How long such a server may be away, or start, before the training that needs it pauses; at most half
    of `phase_limit` counts."""
    llama_python: str = ""
    """A Python that has llama-cpp-python, which says how llama.cpp reads a tokenizer before a GGUF file is
    delivered. Empty: the worker's own."""
    lease: timedelta = timedelta(seconds=30)
    """How long a silent worker keeps a job; renewed every sixth of this."""
    phase_limit: timedelta = timedelta(minutes=30)
    """Longest time a training may stay in one phase (sampling, grading, updating, ...) before it is
    taken to hang, killed and started again from its last saved state."""
    max_fruitless_attempts: int = Field(default=3, ge=1)
    """Attempts without new progress after which a job fails."""
    validations_at_once: int = Field(default=4, ge=1, le=64)
    """Jobs whose files one worker checks at a time. A project has no more of these places than stay free for
    others; with one place it may hold them up."""
    evals_at_once: int = Field(default=4, ge=1, le=64)
    """Runs of evals that one worker carries out at a time, with the same rule about projects."""
    validation_limit: timedelta = timedelta(minutes=30)
    """Longest time that the check of a job's files may take."""
    validation_memory_bytes: int = Field(default=8 * 2**30, ge=2**30)
    """Most private memory that the check of a job's files may take, libraries and all."""
    export_limit: timedelta = timedelta(hours=2)
    """Longest time that a worker may take to write a checkpoint in another form. Chosen, not measured."""
    export_memory_bytes: int = Field(default=32 * 2**30, ge=2**30)
    """Most private memory that it may take: all weights are held at once, in fp32 those of small models."""
    shutdown_grace: timedelta = timedelta(seconds=20)
    """How long a stopping worker waits for its training to save its state."""
    trainer_threads: int = Field(default=0, ge=0)
    """CPU threads of each training process; 0 leaves the choice to torch, or for a training of several
    processes divides the cores among them."""
    devices: Annotated[tuple[DeviceName, ...], NoDecode, BeforeValidator(_split)] = ()
    """Devices that trainings on this machine may take, each for one process: numbers or UUIDs of GPUs, MIG
    slices, and seats on the CPU (`cpu:0,cpu:1`). Empty: the GPUs of CUDA_VISIBLE_DEVICES, else all."""
    gpus: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """GPUs that workers on this machine may use, of those: a job that asks for more waits for another
    machine."""
    device_folder: Path | None = None
    """Folder of this machine, shared by all that train on it, whose locks say which device is taken. Empty:
    one of this user in /tmp. Containers that share GPUs need a common one."""
    train_workers: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = "auto"
    """Trainings that `cherry up` runs side by side. "auto": one for each device, or one without any."""
    training_memory_gib: Annotated[float, Field(gt=0)] | Literal["auto", "unknown"] = "unknown"
    """What a training may take: memory of the machine, or of each GPU, where trainings run. A job that cannot
    fit fails as its files are checked. "auto" is for workers on the machine that trains, and is what
    `cherry up` and a worker of both queues set; "unknown" holds nothing against it."""
    max_gpus: Annotated[int, Field(ge=0)] | Literal["auto", "any"] = "any"
    """GPUs that one job may ask for; more are refused as it is created. "auto": as many as trainings of this
    machine may have, which `cherry up` sets with a database of its own; "any": a job waits for a worker that
    has them."""
    max_processes: int = Field(default=0, ge=0)
    """CPU processes that one training may have; 0 for as many as there are cores."""

    sandbox: Literal["auto", "full", "container", "namespaces", "off"] = "auto"
    """How graders that run code are confined: "auto" for the strongest level that holds here, or one level,
    without which such graders are refused; "off" refuses them always. See docs/sandbox.md."""
    sandbox_seconds: float = Field(default=120.0, gt=0, le=3600)
    """Longest time that one call of a program may take, on the clock."""
    sandbox_cpu_seconds: float = Field(default=120.0, gt=0, le=3600)
    """Most processor time that one call may use."""
    sandbox_memory_bytes: int = Field(default=2 * 2**30, ge=64 * 2**20)
    """Most memory that one call may add to what interpreter and packages have."""
    sandbox_output_bytes: int = Field(default=64 * 2**10, ge=1024, le=2**20)
    """Most that is kept of what one call prints."""
    sandbox_scratch_bytes: int = Field(default=64 * 2**20, ge=2**20)
    """Size of the folder in memory that one call may write into, at level "full"."""
    sandbox_parallel: int = Field(default=0, ge=0, le=256)
    """Calls at a time in one process; 0 for as many as cores and memory allow."""
    sandbox_readable: tuple[Path, ...] = ()
    """Further folders that programs may read, such as NLTK's data, as a JSON array of absolute paths."""

    conformance: bool = False
    """For tests of the service alone: adds /conformance, which wipes the database. Refused on a database that
    was not marked as disposable."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged."""
    log_format: Literal["json", "text"] = "json"
    """Whether a line of the log is for programs or for people."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Returns where values come from, first the strongest. Raises `SettingUnknown`."""
        for where, source in (("the environment", env_settings), (".env", dotenv_settings)):
            _refuse_unknown(cast(EnvSettingsSource, source).env_vars, settings_cls, where)
        return init_settings, env_settings, dotenv_settings, file_secret_settings

    @model_validator(mode="after")
    def _keys_are_there(self) -> Settings:
        entries = [*self.judges.values(), *([self.embeddings] if self.embeddings else [])]
        for entry in entries:
            if entry.key is not None and entry.key not in self.judge_keys:
                raise ValueError(f"the key '{entry.key}' is not in CHERRY_JUDGE_KEYS")
        return self

    def trusted_networks(self) -> tuple[Network, ...]:
        """Returns the networks of trusted proxies."""
        found = map(network_of, self.trusted_proxies)
        return tuple(network for network in found if network is not None)


def setting_names(settings: type[BaseSettings] = Settings) -> set[str]:
    """Returns the names of all settings, as the environment has them."""
    return {f"{PREFIX}{field.upper()}" for field in settings.model_fields}


def _refuse_unknown(given: Mapping[str, str | None], settings: type[BaseSettings], where: str) -> None:
    known = setting_names(settings) | NO_SETTINGS.keys()
    faults = []
    for name, value in ((name.upper(), value or "") for name, value in given.items()):
        if not name.startswith(PREFIX) or name in known or name.startswith(FOR_TESTS):
            continue
        if OF_KUBERNETES.fullmatch(name) or value.startswith(("tcp://", "udp://")):
            continue
        ends = [one.removeprefix(PREFIX) for one in known]
        nearest = get_close_matches(name.removeprefix(PREFIX), ends, n=1)
        hint = f" (did you mean {PREFIX}{nearest[0]}?)" if nearest else ""
        faults.append(f"{name} is no setting{hint}")
    if faults:
        raise SettingUnknown(f"In {where}: {'; '.join(sorted(faults))}. .env.example lists all settings.")


@lru_cache
def get_settings() -> Settings:
    """Returns the settings of this process."""
    return Settings()  # required fields come from the environment
