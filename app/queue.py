"""Wakes workers through Celery. This is the only place that knows task and queue names.

A message says "look in the table" and nothing else, so it may get lost, come late or come twice.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy.orm import Session

from app.db import after_commit
from app.settings import get_settings

log = structlog.get_logger(__name__)

Queue = Literal["validate", "train", "evaluate"]
QUEUES: tuple[Queue, ...] = ("validate", "train", "evaluate")

EXPIRES_SECONDS = 30
"""A wake-up older than this is dropped: by then each idle worker has looked by itself."""
PUBLISH_ONCE_MORE = {"max_retries": 1, "interval_start": 0.1, "interval_max": 0.1}
BROKER_SECONDS = 2.0
"""How long the broker may take to accept a connection or to answer: it does so in milliseconds, and a stalled
disk of its own costs it one second (`appendfsync everysec`)."""


def task_name(queue: Queue) -> str:
    """The one task of a queue: claim rows until none is left."""
    return f"cherry.wake_{queue}"


def worker_command(*queues: Queue, number: int = 1) -> list[str]:
    """Returns the command line of a worker process that works on these queues, one thing at a time.

    Several of one machine differ by their `number`.
    """
    suffix = f"-{number}" if number > 1 else ""
    names = ["--queues", ",".join(queues), "--hostname", f"{'-'.join(queues)}{suffix}@%h"]
    options = [*names, "--pool", "solo", "--concurrency", "1"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    return [sys.executable, "-m", "celery", "--quiet", "-A", "workers.celery_app", "worker", *options, *quiet]


def sampler_command(*options: str) -> list[str]:
    """Returns the command line of a sampler process."""
    return [sys.executable, "-m", "workers.serving", *options]


def broker_options(url: str) -> dict[str, Any]:
    """Returns Celery's settings for a broker URL; makes the folders of `filesystem://FOLDER`."""
    scheme, rest = url.split("://", 1)
    if scheme != "filesystem":
        limits = {"socket_connect_timeout": BROKER_SECONDS, "socket_timeout": BROKER_SECONDS}
        return {"broker_url": url, "broker_transport_options": limits}
    folder = Path(unquote(rest)).absolute()
    messages, control = folder / "messages", folder / "control"
    for place in (messages, control):
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
    options = {
        "data_folder_in": str(messages),
        "data_folder_out": str(messages),
        "control_folder": str(control),
    }
    return {"broker_url": "filesystem://", "broker_transport_options": options}


def make_celery(broker_url: str) -> Celery:
    """Makes a Celery app for clients and workers alike (reasons: docs/architecture.md).

    Early acknowledgement: with a late one, Redis delivers a long task again and again. No prefetch: a second
    wake-up would sit behind a training of hours although another worker is idle.
    """
    celery = Celery("cherry", set_as_current=False)
    celery.conf.update(
        **broker_options(broker_url),
        task_acks_late=False,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_create_missing_queues=True,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_pool="solo",
        worker_concurrency=1,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
    )
    return celery


@lru_cache
def get_celery() -> Celery:
    """Returns the Celery app of this process."""
    return make_celery(get_settings().broker_url)


_sender = ThreadPoolExecutor(1, "wake-ups")
_to_send: set[Queue] = set()


def publish(queue: Queue) -> None:
    """Has one wake-up sent, and does not wait for that: a broker that hangs holds up nobody."""
    if queue not in _to_send:
        _to_send.add(queue)
        _sender.submit(_send, queue)


def _send(queue: Queue) -> None:
    """Sends one wake-up. A broker that is away is logged, not raised: the waker will see the row."""
    _to_send.discard(queue)  # whoever asks from here on may have a row that this one's reader misses
    try:
        get_celery().send_task(
            task_name(queue),
            queue=queue,
            expires=EXPIRES_SECONDS,
            ignore_result=True,
            retry=True,
            retry_policy=PUBLISH_ONCE_MORE,
        )
    except (OperationalError, OSError) as problem:
        log.warning("wake_up_not_sent", queue=queue, problem=str(problem))
    except Exception:  # nobody waits for this thread's outcome
        log.exception("wake_up_failed", queue=queue)


def wake_validator(db: Session) -> None:
    """Has a worker look for jobs to validate, once this transaction has committed."""
    after_commit(db, lambda: publish("validate"))


def wake_trainer(db: Session) -> None:
    """Has a worker look for jobs to train, once this transaction has committed."""
    after_commit(db, lambda: publish("train"))


def wake_evaluator(db: Session) -> None:
    """Has a worker look for runs of evals, once this transaction has committed."""
    after_commit(db, lambda: publish("evaluate"))
