"""What can go wrong with a vLLM server: it is away, or it is not fit for rollouts."""

from __future__ import annotations

from workers.training.base.errors import RunFailed


class ServerAway(Exception):
    """Says that a server did not answer as it should, which may come right by waiting. It is a sentence."""


class RolloutsRefused(RunFailed):
    """Says that a vLLM server cannot do a run's rollouts as it is set up, and what is to be set."""

    code = "rollouts_refused"
