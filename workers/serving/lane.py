"""All requests of one base: who waits, who may begin, and one step of those under way."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
import torch

from app.errors import ApiError, BadRequest, ServerError
from workers.serving.fair_queue import FairQueue
from workers.serving.requests import ModelFiles
from workers.serving.tickets import Ticket
from workers.training.sampling.thought_budgets import thought_budgets

if TYPE_CHECKING:
    from workers.serving.batch import Batch
    from workers.serving.loaded import LoadedBase

log = structlog.get_logger(__name__)

LOST = "The sampler failed; its log says why."


class Lane:
    """Holds the requests of one base, and the base while it is in memory."""

    def __init__(
        self,
        files: ModelFiles,
        want_adapter: Callable[[Lane, ModelFiles], None],
        stopped_waiting: Callable[[Ticket], None],
    ) -> None:
        self.files = files
        self.queue = FairQueue()
        self.base: LoadedBase | None = None
        self.is_loading = False
        self.is_leaving = False
        """Nobody new may begin: another base is to take its place."""
        self.since = 0.0
        """When the base was loaded."""
        self.used = time.monotonic()
        self._want_adapter = want_adapter
        self._stopped_waiting = stopped_waiting

    @property
    def is_under_way(self) -> bool:
        """Says whether anything of it can be stepped."""
        return self.base is not None and any(not batch.is_idle for batch in self.base.batches)

    @property
    def rows(self) -> int:
        """Counts the completions under way."""
        return 0 if self.base is None else sum(map(len, self.base.batches))

    def admit(self) -> None:
        """Lets those begin for whom there is room, one sample of each key after the other."""
        if self.base is None or self.base.is_full:
            return
        while self.queue and self._admit_one(self.base):
            pass
        self.base.settle()

    def _admit_one(self, base: LoadedBase) -> bool:
        """Serves the first key whose turn it is and that can be served; says whether there was one.

        Who waits for memory is not overtaken by new requests, but by further samples of those that hold some.
        """
        blocked: set[Batch] = set()
        for ticket in self.queue.heads():
            if ticket.is_over:
                self.queue.remove(ticket)
                self._stopped_waiting(ticket)
                return True
            if ticket.prompt is None and (self.is_leaving or not self._may_begin(base, ticket)):
                continue
            batch = base.batch_for(len(ticket.request.prompt) + ticket.limit)
            if ticket.prompt is None and batch in blocked:
                continue
            if not batch.fits(ticket):
                blocked.add(batch)
                continue
            self._begin(base, batch, ticket)
            return True
        return False

    def _begin(self, base: LoadedBase, batch: Batch, ticket: Ticket) -> None:
        is_new = ticket.prompt is None
        if is_new:
            base.hold(ticket.request.model)
        number = base.number_of(ticket.request.model)
        try:
            is_done = batch.take(ticket, -1 if number is None else number)
        except Exception:  # those who wait behind it are not concerned
            self._fail(base, batch)  # it is among them
        else:
            self.queue.serve(ticket, is_done=is_done)
        if is_new:
            self._stopped_waiting(ticket)

    def _may_begin(self, base: LoadedBase, ticket: Ticket) -> bool:
        """Says whether a request may begin once there is room; one that never may fails and leaves."""
        model = ticket.request.model
        if model == base.held_back:
            return False
        if model.adapter_of == self.files and base.number_of(model) is None:
            self._want_adapter(self, model)
            return False
        try:
            if not ticket.is_prepared:
                self._prepare(base, ticket)
                ticket.is_prepared = True
        except Exception as problem:
            ticket.fail(self._told(problem))
            self.queue.remove(ticket)
            self._stopped_waiting(ticket)
            return False
        return True

    def _told(self, problem: Exception) -> ApiError:
        """Returns what is told of a request that cannot begin; what nobody foresaw is logged."""
        if isinstance(problem, ApiError):
            return problem
        log.error("request_not_begun", model=self.files.name, exc_info=problem)
        return ServerError(LOST)

    def _prepare(self, base: LoadedBase, ticket: Ticket) -> None:
        """Finds out how long completions may be, and whether the request can be sampled at all."""
        options, prompt = ticket.request.options, ticket.request.prompt
        if not prompt or min(prompt) < 0 or max(prompt) >= base.vocabulary:
            message = "The prompt has tokens that the model has no embedding row for."
            raise BadRequest(message, param="prompt", code="invalid_value")
        if any(not 0 <= token < base.vocabulary for token in options.logit_bias):
            raise BadRequest("The model has no such token.", param="logit_bias", code="invalid_value")
        rest = base.context - len(prompt)
        ticket.limit = min(options.max_tokens, rest)
        batch = base.batch_for(len(prompt) + max(0, ticket.limit))
        room = min(batch.most_tokens, base.context) - len(prompt)
        ticket.limit = min(ticket.limit, room)
        if room < min(1, options.max_tokens):
            raise too_long(len(prompt), batch.most_tokens)
        ticket.stops = base.stop_strings(options.stop)
        if options.call_tag:
            ticket.call_tag = base.stop_strings((options.call_tag,))
        ticket.budgets = thought_budgets(options.reader, options.max_thinking_tokens)
        if options.logit_bias:
            ids, values = zip(*options.logit_bias.items(), strict=True)
            device = base.model.device
            ticket.bias = torch.tensor(ids, device=device), torch.tensor(values, device=device)

    def step(self) -> bool:
        """Steps what is under way; says whether anything was."""
        if self.base is None:
            return False
        found = False
        for batch in self.base.batches:
            if not batch.is_idle:
                found = True
                try:
                    batch.step()
                except Exception:  # other batches are not concerned, nor who comes after
                    self._fail(self.base, batch)
        if found:
            self.used = time.monotonic()
        return found

    def _fail(self, base: LoadedBase, batch: Batch) -> None:
        """Ends all requests of a batch in which something nobody foresaw failed, and frees its memory."""
        log.exception("sampling_failed", model=self.files.name)
        for ticket in batch.fail(ServerError(LOST)):
            self.queue.remove(ticket)
        base.forget(batch)

    def fail_all(self, error: ApiError) -> None:
        """Ends everybody's requests; the lane is of no use afterwards."""
        self.fail_waiting(error)
        for batch in self.base.batches if self.base is not None else ():
            batch.fail(error)

    def drop(self, ticket: Ticket) -> None:
        """Lets a request go that is over."""
        if self.queue.remove(ticket):
            self._stopped_waiting(ticket)
        if self.base is not None:
            for batch in self.base.batches:
                batch.drop(ticket)

    def fail_waiting(self, error: ApiError, model: ModelFiles | None = None) -> None:
        """Ends those that wait, or of these those for one model."""
        for ticket in list(self.queue):
            if model is None or ticket.request.model == model:
                ticket.fail(error)
                self.queue.remove(ticket)
                self._stopped_waiting(ticket)


def too_long(tokens: int, most: int) -> BadRequest:
    """Returns what to say of a prompt that leaves no room for a completion."""
    return BadRequest(
        f"This model's maximum context length is {most} tokens, and the prompt has {tokens}: there is no room"
        " for a completion.",
        param="messages",
        code="context_length_exceeded",
    )
