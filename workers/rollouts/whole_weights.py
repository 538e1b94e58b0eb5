"""Brings every weight of a policy to a vLLM server on this machine: a model's files in memory for each step.

vLLM's own ways, NCCL and CUDA IPC, need a GPU on both sides. Its engines can also load their weights anew out
of a folder (`reload_weights`), on any device; what answers then names the version that it was given.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

import structlog

from workers.rollouts.carried import AFTER, Carrier, Claim, one_at_a_time
from workers.rollouts.errors import RolloutsRefused, ServerAway, WeightsNotWritten
from workers.rollouts.replies import ORIGINAL, By
from workers.rollouts.served import ServedBase
from workers.training.base.recorder import Recorder

log = structlog.get_logger(__name__)

MARK_BYTES = 4
"""Of the random part of a name, so that one name never stands for two weights."""
TOOK = (
    "Rollouts: {gigabytes:.2f} GB of weights go to the vLLM server after each update, through {folder}. After"
    " update {updates}, writing took {written:.1f} s and loading {loaded:.1f} s."
)


class WholeWeights:
    """All weights of one run, step by step. A name is the run, the number of updates and a random mark."""

    def __init__(self, run: Carrier, recorder: Recorder) -> None:
        self._run = run
        self._recorder = recorder
        self._claim = Claim(run.entry, run.name, is_shared=False)
        self._base: ServedBase | None = None
        """The base over there, once its weights have been replaced."""
        self._written = 0.0
        """How long the last writing took, in seconds."""
        self._has_told = False
        run.clear()

    def write(self, updates: int) -> str:
        """Writes a model folder in place of the last one. Raises `RunFailed`."""
        if not self._run.world.is_main:
            return ""
        with contextlib.suppress(ServerAway):  # is said when the weights are to be loaded
            self._claim.take()
        began = time.monotonic()
        name = f"{self._run.name}{AFTER}{updates:06d}-{secrets.token_hex(MARK_BYTES)}"
        self._run.clear()
        write_weights(self._run.folder / name, self._run.policy.rollout_model)
        self._written = time.monotonic() - began
        return name

    def by(self, name: str, base: ServedBase) -> By:
        """Asks for the base model, with weights of that version."""
        return By(name, model=base.name, version=name)

    def load(self, name: str, base: ServedBase) -> bool:
        """Lets the engines load the files, in the first process that comes; the others find it done."""
        if self._run.world.is_main:
            self._claim.take()
        else:
            self._claim.check()
        self._base = base
        with one_at_a_time(self._run.entry):
            if self._run.client.weight_version() == name:
                return False
            began = time.monotonic()
            self._run.client.load_weights(str(self._run.folder / name), name)
            self._tell(name, time.monotonic() - began)
        return True

    def forget_left_over(self, name: str) -> None:
        """Does nothing: other weights take the place of what is there."""

    def close(self) -> None:
        """Gives the server its own weights back, and removes the files."""
        if self._run.world.is_main and self._base is not None:
            with contextlib.suppress(ServerAway, RolloutsRefused), one_at_a_time(self._run.entry):
                self._run.client.load_weights(self._base.folder, ORIGINAL)
        self._run.clear()
        self._claim.release()

    def _tell(self, name: str, loaded: float) -> None:
        updates = int(name.partition(AFTER)[2][:6])
        n_bytes = sum(file.stat().st_size for file in (self._run.folder / name).iterdir())
        told = {"updates": updates, "written": self._written, "loaded": loaded}
        log.info("vllm_weights", bytes=n_bytes, **told)
        if self._run.world.is_main and not self._has_told:
            self._has_told = True
            gigabytes = n_bytes / 1e9
            self._recorder.note(
                "info", TOOK.format(gigabytes=gigabytes, folder=self._run.folder.parent, **told)
            )


def write_weights(folder: Path, model: Any) -> None:
    """Writes a model's weights as they are sampled from, under the names that its family has in files.

    Raises `WeightsNotWritten` where there is no room.
    """
    needed = sum(weight.nbytes for weight in model.state_dict().values())
    partial = folder.with_suffix(".partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        free = shutil.disk_usage(folder.parent).free
        if free < needed:
            raise OSError(f"{needed / 1e9:.2f} GB are needed, and {free / 1e9:.2f} GB are free")
        model.save_pretrained(partial)
        partial.rename(folder)
    except OSError as problem:
        raise WeightsNotWritten("weights", folder.parent.parent, problem) from None
