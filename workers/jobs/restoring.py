"""Brings what an attempt goes on from out of storage: the job's last states and their checkpoints, and how
large its passes may be, where those of an attempt before were too large for the memory of a device."""

from __future__ import annotations

import contextlib
from pathlib import Path

import structlog
from sqlalchemy import select

from app.checkpoints.models import Checkpoint
from app.db import unit_of_work
from app.events import service as events
from app.jobs import status
from app.jobs.status import Claim
from app.storage import get_storage
from workers.jobs.db_recorder import state_prefix, states_to_resume
from workers.training.checkpoints import checkpoint_folder
from workers.training.state import state_folder

log = structlog.get_logger(__name__)

TOKENS = "tokens.txt"


def restore(claim: Claim, folder: Path) -> None:
    """Put the last saved states, and the checkpoints that they may speak of, where the engine looks for them.

    The engine takes the newest state that is whole, and tells of others.
    """
    storage = get_storage()
    with unit_of_work() as db:
        step = status.update_held(db, claim).state_step
        needed = ~Checkpoint.is_snapshot  # of a pause: the engine would drop it, and somebody may be using it
        there = (Checkpoint.job_id == claim.job_id, Checkpoint.storage_key.is_not(None))
        checkpoints = db.execute(select(Checkpoint.step, Checkpoint.storage_key).where(*there, needed)).all()
    if step is None:
        return
    states = states_to_resume(storage, claim.job_id, step)
    if step not in states:
        _tell_of_lost_state(claim, step, next(iter(states), 0))
    for saved_step, state in states.items():
        storage.fetch_folder(state, state_folder(folder, saved_step))
    for saved_step, prefix in checkpoints if states else ():
        with contextlib.suppress(FileNotFoundError):  # a state that needs it cannot be used then
            storage.fetch_folder(str(prefix), checkpoint_folder(folder, saved_step))


def _tell_of_lost_state(claim: Claim, step: int, instead: int) -> None:
    message = (
        f"The training state of step {step} is gone from storage; "
        f"the training goes on from step {instead} instead."
    )
    with unit_of_work() as db:
        status.update_held(db, claim)
        events.append(db, claim.job_id, f"state-lost-{claim.attempt}", message, level="warn")


def keep_pass_tokens(claim: Claim, tokens: int) -> None:
    """Lets later attempts make passes of at most so many tokens. Any process of an attempt may say so.

    It lies among the job's states, so that it goes with them. The attempt is about to end anyway.
    """
    try:
        get_storage().put_bytes(_pass_tokens(claim.job_id, claim.attempt), str(tokens).encode())
    except Exception:  # the next attempt then finds out by itself
        log.exception("pass_tokens_not_kept")


def carry_on_pass_tokens(claim: Claim) -> int | None:
    """Returns the tokens that attempts before have left, and keeps them as this one's; None without any.

    What older attempts have left is removed with the rest of it (leftovers.py).
    """
    found = []
    for attempt in range(claim.attempt):
        with contextlib.suppress(FileNotFoundError):
            found.append(int(get_storage().read_bytes(_pass_tokens(claim.job_id, attempt))))
    if not found:
        return None
    keep_pass_tokens(claim, min(found))
    return min(found)


def _pass_tokens(job_id: str, attempt: int) -> str:
    return f"{state_prefix(job_id)}/passes-{attempt}/{TOKENS}"
