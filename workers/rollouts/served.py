"""Finds a job's base model among what a vLLM server lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from app.table_settings import VllmEntry
from methods.train_config import TrainConfig
from workers.rollouts.errors import RolloutsRefused
from workers.rollouts.vllm_client import VllmClient


class ServedBase(NamedTuple):
    """Is a base model over there.

    Attributes:
        name: what it is called there.
        longest: the most tokens that it takes; 0 where the server does not say.
        folder: where its own weights lie.
    """

    name: str
    longest: int
    folder: str


def find_base(client: VllmClient, entry: VllmEntry, config: TrainConfig) -> ServedBase:
    """Returns the job's base model as the server has it: by its name or folder, or as CHERRY_VLLM says.

    Raises `RolloutsRefused` where the server has it not, and `ServerAway`.
    """
    bases = [one for one in client.models() if not one.get("parent")]
    for one in bases:
        if _is_wanted(one, entry, config):
            folder = str(one.get("root") or config.model_path)
            return ServedBase(str(one["id"]), int(one.get("max_model_len") or 0), folder)
    there = ", ".join(str(one.get("id")) for one in bases) or "nothing"
    raise RolloutsRefused(
        f"The vLLM server at {client.url} serves {there}, and not {entry.model or config.model}: start it"
        f" with --served-model-name {config.model}, or name what it serves in CHERRY_VLLM (`model`)."
    )


def _is_wanted(one: Any, entry: VllmEntry, config: TrainConfig) -> bool:
    if entry.model is not None:
        return bool(one.get("id") == entry.model)
    if one.get("id") in (config.model, config.model_path):
        return True
    root = one.get("root")
    return bool(root) and Path(str(root)).resolve() == Path(config.model_path).resolve()
