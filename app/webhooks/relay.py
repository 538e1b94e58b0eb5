"""Runs `cherry relay`, which sends what is in the outbox. Any number may run; the table decides who sends
what.

It looks twice a second and needs no broker. No transaction is open while it posts.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.db import unit_of_work
from app.sealing import NotOpened, Sealer
from app.settings import Settings
from app.webhooks import message, outbox
from app.webhooks.message import Outcome, WebhookMessage
from app.webhooks.outbox import Claimed

log = structlog.get_logger(__name__)

SENDERS = 16
POLL_SECONDS = 0.5
HOUR_SECONDS = 3600.0
LEASE_MARGIN = timedelta(seconds=5)
"""Time beyond what a receiver may take: what writing the outcome takes at worst."""
REPORT_AFTER = timedelta(days=1)


class Relay:
    """Claims, posts and settles until told to stop."""

    def __init__(self, settings: Settings, stopping: threading.Event) -> None:
        """Makes a relay. Raises `NoSecretKey`."""
        self._settings = settings
        self._stopping = stopping
        self._sealer = Sealer(settings)
        self._client = message.client_of(settings)
        self._next_housekeeping = 0.0

    def run(self) -> None:
        """Sends until `stopping` is set, then waits for what is on its way."""
        with ThreadPoolExecutor(SENDERS, thread_name_prefix="sender") as senders:
            busy: set[Future[None]] = set()
            while not self._stopping.is_set():
                self._keep_house()
                claimed = self._claim(SENDERS - len(busy))
                busy |= {senders.submit(self.send, each) for each in claimed}
                if busy:
                    done, busy = wait(busy, POLL_SECONDS, FIRST_COMPLETED)
                    for each in done:
                        each.result()
                if not claimed and not busy:
                    self._stopping.wait(POLL_SECONDS)

    def send(self, claimed: Claimed) -> None:
        """Makes one attempt."""
        outcome = self._post(claimed)
        settings = self._settings
        try:
            with unit_of_work() as db:
                outbox.settle(
                    db,
                    claimed,
                    outcome,
                    first_pause=settings.webhook_first_retry,
                    retry_for=settings.webhook_retry_for,
                )
        except SQLAlchemyError as problem:  # the lease runs out, and it is sent again
            log.warning("webhook_outcome_not_written", delivery_id=claimed.delivery_id, problem=str(problem))

    def _post(self, claimed: Claimed) -> Outcome:
        try:
            keys = [self._sealer.open(each, claimed.endpoint_id) for each in claimed.sealed]
        except NotOpened as problem:
            log.error("webhook_secret_not_opened", endpoint_id=claimed.endpoint_id, problem=str(problem))
            return Outcome(None, "The signing secret cannot be read by the service: rotate it.")
        wanted = WebhookMessage(claimed.delivery_id, claimed.url, claimed.body.encode(), keys)
        try:
            return message.post(wanted, self._client)
        except Exception:  # one message must not stop all others
            log.exception("webhook_not_posted", delivery_id=claimed.delivery_id)
            return Outcome(None, "The service had an error while it sent this.")

    def _claim(self, most: int) -> list[Claimed]:
        if not most:
            return []
        try:
            with unit_of_work() as db:
                return outbox.claim(db, most=most, lease=self._settings.webhook_timeout + LEASE_MARGIN)
        except SQLAlchemyError as problem:
            log.warning("relay_found_no_database", problem=str(problem))
            self._stopping.wait(POLL_SECONDS)
            return []

    def _keep_house(self) -> None:
        if time.monotonic() < self._next_housekeeping:
            return
        self._next_housekeeping = time.monotonic() + HOUR_SECONDS
        try:
            with unit_of_work() as db:
                outbox.purge(db)
                failing = outbox.failing_for(db, REPORT_AFTER)
        except SQLAlchemyError as problem:
            log.warning("relay_found_no_database", problem=str(problem))
            return
        for endpoint_id, project_id, since, waiting in failing:
            told = {"endpoint_id": endpoint_id, "project_id": project_id, "waiting": waiting}
            log.warning("webhook_endpoint_failing", **told, since=since.isoformat())
