"""What an attempt leaves to the next one when its passes were too large for the memory of a device.

It lies among the job's training states, so that it goes with them; any process of an attempt may write it.
"""

from __future__ import annotations

from contextlib import suppress

import structlog

from app.jobs.status import Claim
from app.storage import get_storage
from workers.jobs.db_recorder import state_prefix

log = structlog.get_logger(__name__)

NAME = "tokens.txt"


def keep(claim: Claim, tokens: int) -> None:
    """Lets later attempts make passes of at most so many tokens. The attempt is about to end anyway."""
    try:
        get_storage().put_bytes(_key(claim.job_id, claim.attempt), str(tokens).encode())
    except Exception:  # the next attempt then finds out by itself
        log.exception("smaller_passes_not_kept")


def carry_on(claim: Claim) -> int | None:
    """Returns the tokens that attempts before have left, and keeps them as this one's; None without any.

    What older attempts have left is removed with the rest of it (leftovers.py).
    """
    found = [tokens for attempt in range(claim.attempt) if (tokens := _of(claim.job_id, attempt)) is not None]
    if not found:
        return None
    keep(claim, min(found))
    return min(found)


def _of(job_id: str, attempt: int) -> int | None:
    with suppress(FileNotFoundError):
        return int(get_storage().read_bytes(_key(job_id, attempt)))
    return None


def _key(job_id: str, attempt: int) -> str:
    return f"{state_prefix(job_id)}/passes-{attempt}/{NAME}"
