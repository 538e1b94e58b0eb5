"""Brings a policy's LoRA adapter to a vLLM server: a file for each step, loaded beside the base."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import structlog

from app.table_settings import VllmEntry
from methods.train_config import TrainConfig
from workers.rollouts.adapter_files import adapter_weights, write_adapter
from workers.rollouts.carried import AFTER, Claim, one_at_a_time
from workers.rollouts.errors import RolloutsRefused, ServerAway
from workers.rollouts.replies import ORIGINAL, By
from workers.rollouts.served import ServedBase
from workers.rollouts.vllm_client import VllmClient
from workers.training.base.distributed import World
from workers.training.model.policy import Policy

log = structlog.get_logger(__name__)


class Adapters:
    """The adapters of one run. A name is the run, the number of updates and a digest of the weights."""

    def __init__(
        self,
        client: VllmClient,
        entry: VllmEntry,
        run_name: str,
        policy: Policy,
        config: TrainConfig,
        world: World,
    ) -> None:
        """`run_name` is in the names of its adapters: no other run that asks this server has the same."""
        self._client = client
        self._entry = entry
        self._run_name = run_name
        self._policy = policy
        self._config = config
        self._world = world
        self._folder = Path(entry.adapters).absolute() / run_name
        self._claim = Claim(entry, run_name, is_shared=True) if entry.whole_weights else None
        if world.is_main:
            shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, updates: int) -> str:
        """Writes the adapter, and forgets earlier ones. Raises `RunFailed`."""
        weights = adapter_weights(self._policy)
        if not self._world.is_main:
            return ""
        prefix = f"{self._run_name}{AFTER}{updates:06d}"
        name = write_adapter(self._folder, prefix, weights, self._config)
        self._forget_all_but(name)
        return name

    def by(self, name: str, base: ServedBase) -> By:  # noqa: ARG002
        """Asks for the adapter, beside the weights with which the server has started."""
        return By(name, model=name)

    def load(self, name: str, base: ServedBase) -> bool:
        """Loads the adapter; the base's own weights too, where a run that was killed has left others."""
        if self._claim is not None:
            self._claim.take()
            with one_at_a_time(self._entry):
                if self._client.weight_version() != ORIGINAL:
                    self._client.load_weights(base.folder, ORIGINAL)
        self._client.load_adapter(name, str(self._folder / name))
        return False

    def forget_left_over(self, name: str) -> None:
        """Unloads adapters of this run that have no file here."""
        own = f"{self._run_name}{AFTER}"
        for one in self._client.models() if self._world.is_main else ():
            other = str(one.get("id"))
            if one.get("parent") and other.startswith(own) and other != name:
                self._client.unload_adapter(other)

    def close(self) -> None:
        """Unloads the adapters and removes their files."""
        if self._world.is_main:
            self._forget_all_but("")
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._claim is not None:
            self._claim.release()

    def _forget_all_but(self, name: str) -> None:
        """Unloads every adapter of this run but one, and removes their files."""
        if not self._folder.is_dir():
            return
        for folder in self._folder.iterdir():
            if folder.name != name:
                with contextlib.suppress(RolloutsRefused):
                    self._unload(folder.name)
                shutil.rmtree(folder, ignore_errors=True)

    def _unload(self, name: str) -> None:
        try:
            self._client.unload_adapter(name)
        except ServerAway as problem:
            log.warning("vllm_away", url=self._client.url, problem=str(problem))
