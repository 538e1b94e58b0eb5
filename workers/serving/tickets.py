"""Requests under way, as the engine knows them: a ticket for each, and a row for each completion of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import structlog

from app.errors import ApiError
from workers.serving.requests import Event, Failed, PromptToken, Request, Token

if TYPE_CHECKING:
    from torch import Tensor

    from workers.serving.counts import Counts
    from workers.serving.parts.answer_stops import AnswerStops
    from workers.serving.prefixes import Entry
    from workers.training.rendering.stop_strings import StopStrings
    from workers.training.sampling.thought_budgets import ThoughtBudgets

log = structlog.get_logger(__name__)

Finish = Literal["stop", "length"]


class Ticket:
    """Is one request under way. All but `cancel` is the engine's own."""

    def __init__(self, request: Request, counts: Counts, on_cancel: Callable[[Ticket], None]) -> None:
        self.request = request
        self.leave: Callable[[Ticket], None] | None = None
        """Lets go of it, wherever it waits or runs."""
        self.is_over = False
        """It ended, failed or was cancelled: nothing more is told of it."""
        self.is_waiting = True
        """It counts among those that wait."""
        self.prompt: Prompt | None = None
        self.limit = 0
        """The most tokens of each of its completions."""
        self.granted = 0
        """Samples that have been given memory."""
        self.started = 0
        self.ended = 0
        self.told: list[Token] = []
        """What is told at the end of the step."""
        self.stops: StopStrings | None = None
        self.call_tag: StopStrings | None = None
        self.budgets: ThoughtBudgets | None = None
        self.bias: tuple[Tensor, Tensor] | None = None
        self.is_prepared = False
        """What is below `limit` is known."""
        self._counts = counts
        self._on_cancel = on_cancel

    def cancel(self) -> None:
        """Lets the request go; what it holds is free at the next step. Any thread may call it."""
        if not self.is_over:
            self._on_cancel(self)

    def tell(self, event: Event) -> None:
        """Hands an event on, if anybody still listens. A listener that fails is cancelled."""
        if self.is_over:
            return
        try:
            self.request.on_event(event)
        except Exception:  # the engine goes on, whatever becomes of a listener
            log.exception("listener_failed")
            self._on_cancel(self)

    def fail(self, error: ApiError) -> None:
        """Ends the request with an error."""
        if not self.is_over:
            self._counts.failed += 1
        self.tell(Failed(error))
        self.is_over = True


class Prompt:
    """Is a request's prompt in the cache of keys and values."""

    def __init__(self, ids: list[int], adapter: int) -> None:
        self.ids = ids
        self.adapter = adapter
        """The number of the adapter that reads it; -1 for none."""
        self.slot = -1
        self.read = 0
        """Tokens that were read, or were known already."""
        self.cached = 0
        self.logits: Tensor | None = None
        """Of its completions' first token, (V,); None before all was read."""
        self.scores: list[PromptToken] | None = None
        self.last_logits: Tensor | None = None
        """Of the token after the last piece, where the prompt's own logprobs are asked for."""
        self.entry: Entry | None = None


class Row:
    """Is one completion under way."""

    __slots__ = ("answer_stops", "counts", "matcher", "sample", "slot", "ticket", "tokens")

    def __init__(self, ticket: Ticket, sample: int, slot: int) -> None:
        self.ticket = ticket
        self.sample = sample
        self.slot = slot
        """Of its prompt."""
        self.tokens: list[int] = []
        self.matcher: Any = None
        """Where it stands in its grammar."""
        self.answer_stops: AnswerStops | None = None
        """Looks for stop strings where not all of it is answer."""
        self.counts: dict[int, int] = {}
        """How often it has each token, where that is penalised."""

    def reaches_stop(self) -> bool:
        """Says whether the newest token has completed a stop string. It is asked once for each token."""
        stops = self.ticket.stops
        if stops is None:
            return False
        if self.answer_stops is not None:
            return self.answer_stops.push(self.tokens[-1])
        return stops.is_complete(self.tokens)
