"""What can go wrong with a vLLM server: it is away, or it is not fit for rollouts."""

from __future__ import annotations

from pathlib import Path

from workers.training.base.errors import RunFailed


class ServerAway(Exception):
    """Says that a server did not answer as it should, which may come right by waiting. It is a sentence."""


class RolloutsRefused(RunFailed):
    """Says that a vLLM server cannot do a run's rollouts as it is set up, and what is to be set."""

    code = "rollouts_refused"


class WeightsNotWritten(RunFailed):
    """Says that the folder in which weights go to a server is full, or not writable."""

    code = "rollouts_refused"

    def __init__(self, what: str, folder: Path, problem: OSError) -> None:
        super().__init__(
            f"The {what} for the vLLM server cannot be written below {folder}: {problem}. CHERRY_VLLM says"
            " where (`adapters`)."
        )
