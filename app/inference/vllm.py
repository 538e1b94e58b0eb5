"""A vLLM server as the back end: the base model that it serves, and LoRA adapters loaded into it on demand.

It knows models by names of its own. An adapter is loaded under the id of its checkpoint, whose files never
change, so that a name can never stand for older weights.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.checkpoints.models import Checkpoint
from app.errors import BadRequest, Unavailable
from app.inference.connection import ConnectionFailed, request
from app.models import service as models
from app.models.models import Model
from app.models.served import served_name
from app.settings import get_settings
from app.storage import get_storage
from methods.messages import THOUGHTS, thought_of

log = structlog.get_logger(__name__)

ADAPTER = "adapter"
"""The folder of a checkpoint that holds its LoRA adapter."""
CONFIG = "adapter_config.json"
COPIES = "adapters"
"""The folder of `data_dir` with copies of adapters out of remote storage, as long as they are loaded."""
NOT_SERVED = "model_not_served"
ALREADY = "already been loaded"
"""What vLLM says of a name that it has: another process of this service was faster."""


NAMES = {"max_thinking_tokens": "thinking_token_budget"}
"""Parameters that vLLM has by another name."""
COUNTED_BY_VLLM = ("model", "messages", "tools", "chat_template_kwargs")
"""What it takes of a chat whose tokens are counted."""


def as_vllm_has_it(body: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a request with the names that vLLM has for its parameters, and for earlier thoughts."""
    asked = {NAMES.get(name, name): value for name, value in body.items()}
    if "messages" in asked:
        asked["messages"] = [_as_vllm_has_it(message) for message in asked["messages"]]
    return asked


def _as_vllm_has_it(message: Mapping[str, Any]) -> dict[str, Any]:
    thoughts = thought_of(message)
    kept = {name: value for name, value in message.items() if name not in THOUGHTS}
    return kept | ({"reasoning": thoughts} if thoughts else {})


class Wanted(NamedTuple):
    """A model as a vLLM server can be asked for it."""

    name: str
    base: Model
    """The base model itself, or the one that the adapter belongs to."""
    checkpoint_id: str | None = None
    adapter: str | None = None
    """The prefix of the adapter's files in storage."""


def wanted(db: Session, project_id: str, model: Model) -> Wanted:
    """Returns what of a model a vLLM server is asked for. Raises `BadRequest` for what none can serve."""
    if model.base is None:
        return Wanted(model.name, model)
    base = models.find(db, project_id, model.base)
    if base is None or base.base is not None:
        raise _not_served(
            model.name, "it was tuned from a tuned model, so no adapter of it fits the base model"
        )
    kept = (Checkpoint.job_id == model.job_id, Checkpoint.storage_key == model.storage_key)
    checkpoint = db.scalars(select(Checkpoint).where(*kept)).first()
    if checkpoint is None or not any(
        path.startswith(f"{ADAPTER}/") for path in checkpoint.manifest.get("files", {})
    ):
        raise _not_served(model.name, "it has no LoRA adapter (its job trained all weights, or starts anew)")
    return Wanted(model.name, base, checkpoint.id, f"{checkpoint.storage_key}/{ADAPTER}")


class Vllm:
    """One vLLM server, and the adapters that this process has had it load."""

    def __init__(self, url: str, headers: Mapping[str, str], most_adapters: int) -> None:
        self._url = url
        self._headers = headers
        self._most = most_adapters
        self._listed: Sequence[Mapping[str, Any]] = ()
        self._loaded: OrderedDict[str, None] = OrderedDict()
        """Names of adapters, the one used last at the end."""
        self._lock = asyncio.Lock()

    async def name_of(self, wanted: Wanted) -> str:
        """Returns the name by which the server knows a model, whose adapter it has loaded if it needs one.

        Raises `BadRequest` for what it cannot serve.
        """
        served = await self._base_name(wanted)
        if wanted.adapter is None or wanted.checkpoint_id is None:
            return served
        async with self._lock:
            if wanted.checkpoint_id not in self._loaded:
                await self._make_room()
                await self._load(wanted.name, wanted.checkpoint_id, wanted.adapter)
                self._loaded[wanted.checkpoint_id] = None
            self._loaded.move_to_end(wanted.checkpoint_id)
        return wanted.checkpoint_id

    def forget(self, name: str) -> None:
        """Forgets that an adapter is loaded, because the server says that it is not, and what is served."""
        self._loaded.pop(name, None)
        self._listed = ()

    async def _base_name(self, wanted: Wanted) -> str:
        """Finds the base among what the server serves, by the name or folder that it was registered with."""
        if not self._listed:
            status, told = await self._call("GET", "/v1/models")
            if status != 200:
                raise Unavailable("The vLLM server does not list its models.", headers={"retry-after": "2"})
            self._listed = told.get("data", ())
        if (name := served_name(self._listed, wanted.base)) is not None:
            return name
        there = ", ".join(str(one["id"]) for one in self._listed if not one.get("parent"))
        raise _not_served(
            wanted.name, f"the vLLM server behind this service serves {there} and models tuned from it"
        )

    async def _load(self, name: str, checkpoint_id: str, prefix: str) -> None:
        folder = await run_in_threadpool(_local_folder, prefix, checkpoint_id)
        body = {"lora_name": checkpoint_id, "lora_path": str(folder)}
        status, told = await self._call("POST", "/v1/load_lora_adapter", body)
        if status == 200 or ALREADY in _message(told):
            log.info("adapter_loaded", model=name, checkpoint_id=checkpoint_id)
            return
        if status == 404 and "Not Found" in _message(told):
            raise Unavailable(
                "The vLLM server loads no adapters: it must be started with --enable-lora and"
                " VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.",
                headers={"x-should-retry": "false"},
            )
        raise _not_served(name, f"the vLLM server does not load its adapter: {_message(told)[:300]}")

    async def _make_room(self) -> None:
        while len(self._loaded) >= self._most:
            oldest = next(iter(self._loaded))
            await self._call("POST", "/v1/unload_lora_adapter", {"lora_name": oldest})
            del self._loaded[oldest]
            await run_in_threadpool(shutil.rmtree, _copy_of(oldest), ignore_errors=True)
            log.info("adapter_forgotten", checkpoint_id=oldest)

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        headers = {**self._headers, "content-type": "application/json"}
        try:
            response = await request(
                method, self._url + path, headers, json.dumps(body).encode() if body else b""
            )
            content = await response.whole()
        except ConnectionFailed as problem:
            raise Unavailable(
                f"The vLLM server does not answer: {problem}.", headers={"retry-after": "2"}
            ) from None
        response.close()
        try:
            return response.status, json.loads(content)
        except ValueError:
            return response.status, content.decode("utf-8", "replace")


def _local_folder(prefix: str, checkpoint_id: str) -> Path:
    """Returns where an adapter's files lie, copied out of remote storage if need be."""
    storage = get_storage()
    if local := storage.local_path(f"{prefix}/{CONFIG}"):
        return local.parent.absolute()
    copy = _copy_of(checkpoint_id)
    if not (copy / CONFIG).is_file():
        shutil.rmtree(copy, ignore_errors=True)
        storage.fetch_folder(prefix, copy)
    return copy.absolute()


def _copy_of(checkpoint_id: str) -> Path:
    return get_settings().data_dir / COPIES / checkpoint_id


def _message(told: Any) -> str:
    if isinstance(told, Mapping):
        error = told.get("error", told)
        return (
            str(error.get("message") or error.get("detail") or error)
            if isinstance(error, Mapping)
            else str(error)
        )
    return str(told)


def _not_served(name: str, why: str) -> BadRequest:
    return BadRequest(f"The model '{name}' cannot be asked here: {why}.", param="model", code=NOT_SERVED)
