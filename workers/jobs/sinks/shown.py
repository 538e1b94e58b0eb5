"""Tells the integrations of a job of its run. What goes wrong there is an event, and never the run's end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from app.db import unit_of_work
from app.events import service as events
from app.jobs import status
from app.jobs.status import Claim
from app.settings import get_settings
from app.storable import clean
from workers.jobs.sinks.base import ShownRun
from workers.jobs.sinks.listener import SinkListener, Warn
from workers.training.base.recorder import Recorder
from workers.training.recorders import FanOut

log = structlog.get_logger(__name__)

TITLES = {
    "wandb": "Weights & Biases",
    "tensorboard": "TensorBoard",
    "mlflow": "MLflow",
    "trackio": "Trackio",
}
MAX_MESSAGE = 700


@contextmanager
def shown_elsewhere(recorder: Recorder, claim: Claim) -> Iterator[Recorder]:
    """Gives a recorder that also tells the job's integrations, whose processes end with the block."""
    with unit_of_work() as db:
        job = status.update_held(db, claim)
    data_dir = str(get_settings().data_dir.absolute())
    listeners = []
    for integration in job.integrations or ():
        kind = integration["type"]
        run = ShownRun(job.id, job.model, integration.get(kind) or {}, job.config or {}, data_dir)
        listeners.append(SinkListener.of(kind, TITLES[kind], run, _warner(claim, kind)))
    try:
        yield FanOut(recorder, *listeners) if listeners else recorder
    finally:
        for listener in listeners:
            listener.finish()


def _warner(claim: Claim, kind: str) -> Warn:
    """Returns what writes a warning event: of each fault once for a job, of missing steps once an attempt."""

    def warn(fault: str, message: str) -> None:
        log.warning("integration_fault", sink=kind, fault=fault, message=message)
        key = f"{kind}-{fault}" + (f"-{claim.attempt}" if fault == "incomplete" else "")
        try:
            with unit_of_work() as db:
                job = status.update_held(db, claim)
                events.append(db, job.id, key, clean(message)[:MAX_MESSAGE], level="warn")
        except Exception:  # the lease is lost, or the database away: the run finds that out by itself
            log.exception("integration_fault_not_told", sink=kind)

    return warn
