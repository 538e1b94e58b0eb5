"""Where else a run is shown: Weights & Biases, as a listener that never stops the run.

The `wandb` package is optional, and the account is the operator's: `WANDB_API_KEY` in the worker's
environment, or `WANDB_MODE=offline`, which writes the run's folder below the working folder for `wandb sync`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from app.db import unit_of_work
from app.events import service as events
from app.jobs import status
from app.jobs.status import Claim
from app.settings import get_settings
from app.storable import clean
from workers.training.base.recorder import Recorder
from workers.training.recorders import FanOut, Silent

log = structlog.get_logger(__name__)

FINISH_SECONDS = 60.0
"""How long the end of a job waits for what is still to be sent."""
MAX_TAG = 64


class Unavailable(Exception):
    """The run cannot be shown there; the text says why."""


@contextmanager
def shown_elsewhere(recorder: Recorder, claim: Claim) -> Iterator[Recorder]:
    """A recorder that also tells the job's integrations. One that cannot be reached is a warning event."""
    with unit_of_work() as db:
        job = status.update_held(db, claim)
    listeners: list[WandbListener] = []
    for integration in job.integrations or ():
        try:
            listeners.append(WandbListener(integration["wandb"], job.id, job.model, job.config or {}))
        except Unavailable as reason:
            _warn(claim, str(reason))
    try:
        yield FanOut(recorder, *listeners) if listeners else recorder
    finally:
        for listener in listeners:
            listener.finish()


class WandbListener(Silent):
    """One run at Weights & Biases; a job that is resumed goes on with the same."""

    def __init__(self, wanted: Mapping[str, Any], job_id: str, model: str, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError:
            raise Unavailable("its package `wandb` is not installed on the worker.") from None
        if not os.environ.get("WANDB_API_KEY") and os.environ.get("WANDB_MODE") != "offline":
            raise Unavailable("the worker has neither WANDB_API_KEY nor WANDB_MODE=offline.")
        folder = get_settings().data_dir / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        quiet = wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, x_disable_meta=True
        )
        try:
            self._run = wandb.init(
                id=job_id,
                resume="allow",
                project=wanted["project"],
                entity=wanted.get("entity"),
                name=wanted.get("name") or job_id,
                tags=_tags(wanted.get("tags") or (), model, job_id),
                config={name: value for name, value in config.items() if name != "model_path"},
                dir=str(folder),
                settings=quiet,
            )
            self._is_in_order = config.get("n_seeds", 1) == 1 or config.get("processes", 1) == 1
            if not self._is_in_order:
                self._run.define_metric("job_step")
                self._run.define_metric("*", step_metric="job_step")
        except Exception as problem:  # the network, the account, the server: it has many words
            raise Unavailable(f"it cannot be reached: {problem}") from None

    def metrics(self, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        if self._is_in_order:
            self._run.log({"epoch": epoch, **values}, step=step)
        else:  # its own steps only rise; those of seeds side by side come as they are made
            self._run.log({"epoch": epoch, "job_step": step, **values})

    def finish(self) -> None:
        """Send the rest, within bounds."""
        thread = threading.Thread(target=self._finish, name="wandb-finish", daemon=True)
        thread.start()
        thread.join(FINISH_SECONDS)
        if thread.is_alive():
            log.warning("wandb_not_finished")

    def _finish(self) -> None:
        try:
            self._run.finish()
        except Exception:  # as above
            log.exception("wandb_not_finished")

    @property
    def folder(self) -> Path:
        """Where an offline run lies."""
        return Path(self._run.dir).parent


def _tags(wanted: Sequence[str], model: str, job_id: str) -> list[str]:
    """The owner's, and the ones that OpenAI adds under its own name."""
    ours = ("cherry/finetune", f"cherry/{model}", f"cherry/{job_id}")
    return [*wanted, *(tag[:MAX_TAG] for tag in ours)]


def _warn(claim: Claim, reason: str) -> None:
    log.warning("integration_unavailable", reason=reason)
    with unit_of_work() as db:
        job = status.update_held(db, claim)
        message = f"The job is not shown at Weights & Biases: {clean(reason)[:500]}"
        events.append(db, job.id, "wandb-unavailable", message, level="warn")
