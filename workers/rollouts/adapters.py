"""Brings a policy's LoRA adapter to a vLLM server: a file for each step, loaded beside the base."""

from __future__ import annotations

import contextlib
import shutil

import structlog

from methods.train_config import TrainConfig
from workers.rollouts.adapter_files import adapter_weights, write_adapter
from workers.rollouts.carried import AFTER, Carrier, Claim, one_at_a_time
from workers.rollouts.errors import RolloutsRefused, ServerAway
from workers.rollouts.replies import ORIGINAL, By
from workers.rollouts.served import ServedBase

log = structlog.get_logger(__name__)


class Adapters:
    """The adapters of one run. A name is the run, the number of updates and a digest of the weights."""

    def __init__(self, run: Carrier, config: TrainConfig) -> None:
        self._run = run
        self._config = config
        self._claim = Claim(run.entry, run.name, is_shared=True) if run.entry.whole_weights else None
        run.clear()

    def write(self, updates: int) -> str:
        """Writes the adapter, and forgets earlier ones. Raises `RunFailed`."""
        weights = adapter_weights(self._run.policy)
        if not self._run.world.is_main:
            return ""
        prefix = f"{self._run.name}{AFTER}{updates:06d}"
        name = write_adapter(self._run.folder, prefix, weights, self._config)
        self._forget_all_but(name)
        return name

    def by(self, name: str, base: ServedBase) -> By:  # noqa: ARG002
        """Asks for the adapter, beside the weights with which the server has started."""
        return By(name, model=name)

    def load(self, name: str, base: ServedBase) -> bool:
        """Loads the adapter; the base's own weights too, where a run that was killed has left others."""
        if self._claim is not None:
            self._claim.take()
            with one_at_a_time(self._run.entry):
                if self._run.client.weight_version() != ORIGINAL:
                    self._run.client.load_weights(base.folder, ORIGINAL)
        self._run.client.load_adapter(name, str(self._run.folder / name))
        return False

    def forget_left_over(self, name: str) -> None:
        """Unloads adapters of this run that have no file here."""
        own = f"{self._run.name}{AFTER}"
        for one in self._run.client.models() if self._run.world.is_main else ():
            other = str(one.get("id"))
            if one.get("parent") and other.startswith(own) and other != name:
                self._run.client.unload_adapter(other)

    def close(self) -> None:
        """Unloads the adapters and removes their files."""
        if self._run.world.is_main:
            self._forget_all_but("")
        self._run.clear()
        if self._claim is not None:
            self._claim.release()

    def _forget_all_but(self, name: str) -> None:
        """Unloads every adapter of this run but one, and removes their files."""
        if not self._run.folder.is_dir():
            return
        for folder in self._run.folder.iterdir():
            if folder.name != name:
                with contextlib.suppress(RolloutsRefused):
                    self._unload(folder.name)
                shutil.rmtree(folder, ignore_errors=True)

    def _unload(self, name: str) -> None:
        try:
            self._run.client.unload_adapter(name)
        except ServerAway as problem:
            log.warning("vllm_away", url=self._run.client.url, problem=str(problem))
