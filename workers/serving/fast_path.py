"""Prompts and rows of models on the fast path: prompts read in pieces, known beginnings not again."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from workers.serving.choosing import Table, scores
from workers.serving.prefixes import BLOCK, Entry, Prefixes
from workers.serving.requests import PromptToken
from workers.serving.tickets import Prompt, Row, Ticket
from workers.training.model.adapter_rows import AdapterRows
from workers.training.sampling.decode_step import ActiveRows, Ints
from workers.training.sampling.lasting import LastingDecoder
from workers.training.sampling.prompt_pieces import Piece

if TYPE_CHECKING:
    from workers.training.kernels.decode_ahead import Draws

LEAST_PIECE = 32
"""Tokens below which pieces of any length are read together. Chosen, not measured."""
KNOWN_SHARE = 4
"""The part of the memory that sequences may take which nobody uses now. Chosen, not measured."""
MOST_SCORED = 256
"""Tokens of a piece whose own logprobs are told: each has logits of the whole vocabulary. Chosen."""


class Ready(NamedTuple):
    """Says that samples of a request may draw their first token; `slots` hold its prompt, one for each.

    Logits are (samples, V).
    """

    ticket: Ticket
    slots: Sequence[int]
    logits: Tensor


class FastPath:
    """Holds the memory of one batch."""

    def __init__(self, model: Any, rows: int, context: int, n_bytes: int, adapters: AdapterRows) -> None:
        self._decoder = LastingDecoder(model, rows, context, adapters, n_bytes)
        self._decoder.warm()
        self._bytes = n_bytes
        slots = self._decoder.prompt_slots
        self._free = list(range(slots))
        self._lengths = np.ones(slots, np.int64)
        self._users = np.zeros(slots, np.int64)
        self._prefixes = Prefixes()
        self._reading: deque[Ticket] = deque()
        self._ready: list[Ticket] = []
        self._reserved = 0

    @property
    def rows(self) -> int:
        """Returns the most completions that are decoded side by side."""
        return self._decoder.rows

    @property
    def most_tokens(self) -> int:
        """Returns the most tokens that the memory holds."""
        return self._bytes // self._decoder.bytes_per_token

    @property
    def is_reading(self) -> bool:
        """Says whether prompts wait to be read."""
        return bool(self._reading)

    def fits(self, ticket: Ticket) -> bool:
        """Says whether there is memory for another sample of a request, and its prompt if that is new."""
        is_new = ticket.prompt is None
        needed = ticket.limit + (len(ticket.request.prompt) if is_new else 0)
        slots = int(is_new) + int(self._decoder.has_a_row_per_prompt)
        return len(self._free) >= slots and self._reserved + needed <= self.most_tokens

    def begin(self, ticket: Ticket, adapter: int) -> None:
        """Gives a prompt its slot, with what is known of it already."""
        prompt = ticket.prompt = Prompt(list(ticket.request.prompt), adapter)
        self._reserve(len(prompt.ids))
        prompt.slot = heapq.heappop(self._free)
        self._users[prompt.slot] = 1
        self._reading.append(ticket)
        if ticket.request.options.prompt_logprobs is not None:
            prompt.scores = [PromptToken(prompt.ids[0], None, ())]
            return
        found = self._prefixes.longest(ticket.request.model, prompt.ids)
        if found is not None:
            entry, n = found
            n = min(n, len(prompt.ids) - 1)  # the last token's logits are needed
            self._decoder.restore(prompt.slot, entry.take(n), n)
            prompt.read = prompt.cached = n

    def grant(self, ticket: Ticket) -> None:
        """Sets memory aside for another sample."""
        self._reserve(ticket.limit)
        ticket.granted += 1
        if ticket.prompt is not None and ticket.prompt.logits is not None and ticket not in self._ready:
            self._ready.append(ticket)

    def read(self, most: int) -> int:
        """Reads up to about `most` tokens of prompts; returns how many."""
        chosen = self._choose(most)
        prompts = [_prompt(ticket) for ticket, _ in chosen]
        pieces = [
            Piece(prompt.slot, prompt.read, prompt.ids[prompt.read : prompt.read + n])
            for prompt, (_, n) in zip(prompts, chosen, strict=True)
        ]
        adapters = np.array([prompt.adapter for prompt in prompts])
        states = self._decoder.read(pieces, adapters if (adapters >= 0).any() else None)
        done = []
        for row, (ticket, n) in enumerate(chosen):
            prompt = prompts[row]
            if prompt.scores is not None:
                self._score(ticket, prompt, states[row, :n])
            prompt.read += n
            if prompt.read == len(prompt.ids):
                done.append((row, n - 1, ticket))
            else:
                self._reading.append(ticket)
        if done:
            rows, lasts, tickets = zip(*done, strict=True)
            self._finish_reading(tickets, self._decoder.logits(states[list(rows), list(lasts)]))
        return sum(n for _, n in chosen)

    def _choose(self, most: int) -> list[tuple[Ticket, int]]:
        """Takes the prompt that has waited longest, and others that can be read with it."""
        first = self._reading.popleft()
        scored = first.request.options.prompt_logprobs is not None
        width = max(1, min(_rest(first), MOST_SCORED if scored else most, most))
        chosen, left = [(first, width)], []
        while self._reading and (len(chosen) + 1) * width <= most:
            ticket = self._reading.popleft()
            n = min(_rest(ticket), width)
            if 2 * n >= width or width <= LEAST_PIECE:
                chosen.append((ticket, n))
            else:
                left.append(ticket)
        self._reading.extendleft(reversed(left))
        return chosen

    def _score(self, ticket: Ticket, prompt: Prompt, states: Tensor) -> None:
        """Adds the logprobs of the tokens whose predictions a piece has brought."""
        assert prompt.scores is not None
        alternatives = ticket.request.options.prompt_logprobs or 0
        following = prompt.ids[prompt.read + 1 : prompt.read + 1 + len(states)]
        if following:
            logits = self._decoder.logits(states[: len(following)])
            prompt.scores += scores(logits, following, alternatives)

    def _finish_reading(self, tickets: Sequence[Ticket], logits: Tensor) -> None:
        for ticket, own in zip(tickets, logits, strict=True):
            prompt = _prompt(ticket)
            prompt.logits = own
            self._lengths[prompt.slot] = len(prompt.ids)
            self._ready.append(ticket)
            take = partial(self._decoder.keep, prompt.slot)
            prompt.entry = Entry(ticket.request.model, prompt.ids, take, 0)
            self._prefixes.put(prompt.entry)

    def take_ready(self, _first: int) -> list[Ready]:
        """Returns the samples that may begin."""
        found = []
        for ticket in self._ready:
            prompt = _prompt(ticket)
            assert prompt.logits is not None
            slots = [self._slot_of_sample(prompt) for _ in range(ticket.granted - ticket.started)]
            found.append(Ready(ticket, slots, prompt.logits.expand(len(slots), -1)))
        self._ready.clear()
        return found

    def _slot_of_sample(self, prompt: Prompt) -> int:
        slot = prompt.slot
        if self._decoder.has_a_row_per_prompt and self._users[slot] > 1:
            slot = heapq.heappop(self._free)
            self._decoder.copy_prompt(prompt.slot, slot, len(prompt.ids))
            self._lengths[slot] = len(prompt.ids)
        self._users[slot] += 1
        return slot

    def active(self, table: Table, n: int) -> ActiveRows:
        """Returns the first n rows as the decoders take them."""
        slots = table.slots[:n]
        return ActiveRows(slots, table.counts[:n], self._lengths[: int(slots.max(initial=0)) + 1])

    def decode(self, active: ActiveRows, ids: Tensor, table: Table) -> Tensor:
        """Returns the logits of the next token of each row, (B, V), given its last."""
        return self._decoder.decode(active, ids, _adapters(table, len(ids)))

    def ahead(self, active: ActiveRows, ids: Tensor, table: Table, draws: Draws) -> int:
        """Decodes and draws several tokens of each row, up to the first that ends one; returns how many.

        `ids` (B,), the last of each, and the table's counts follow. It is 0 where each step is a call of
        its own.
        """
        adapters = _adapters(table, len(ids))
        if not self._decoder.can_run_ahead(len(ids), adapters):
            return 0
        return self._decoder.ahead(active, ids, adapters, draws)

    def keep(self, row: Row, i: int) -> None:
        """Keeps what a finished row in slot i has read, for prompts that begin like it."""
        prompt = _prompt(row.ticket)
        n = len(prompt.ids) + len(row.tokens) - 1  # its last token was not read
        if n < BLOCK:
            return
        kept = self._decoder.keep(row.slot, len(prompt.ids), i, len(row.tokens) - 1)
        tokens = prompt.ids + row.tokens[:-1]
        self._prefixes.put(Entry(row.ticket.request.model, tokens, lambda _: kept, kept.nbytes))
        self._shrink()

    def remove_row(self, row: Row, i: int, last: int, last_width: int) -> None:
        """Frees slot i; the row in slot `last`, the last, moves there."""
        width = len(row.tokens)
        if i == last or width > 2 * last_width:
            self._decoder.free_row(i, width)
        if i != last:
            self._decoder.move_row(last, i, last_width)
            self._decoder.free_row(last, last_width)
        self._reserve(-row.ticket.limit)
        self._release(row.slot)

    def end(self, ticket: Ticket) -> None:
        """Lets go of a request's prompt, and of samples that never began."""
        prompt = ticket.prompt
        if prompt is None:
            return
        self._reserve(-(ticket.granted - ticket.started) * ticket.limit - len(prompt.ids))
        for waiting in (self._reading, self._ready):
            if ticket in waiting:
                waiting.remove(ticket)
        if prompt.entry is not None:
            self._prefixes.drop(prompt.entry)
        self._release(prompt.slot)

    def _release(self, slot: int) -> None:
        self._users[slot] -= 1
        if self._users[slot] == 0:
            self._decoder.free_prompt(slot, int(self._lengths[slot]))
            self._lengths[slot] = 1
            heapq.heappush(self._free, slot)

    def _reserve(self, tokens: int) -> None:
        self._reserved += tokens
        if tokens > 0:
            self._shrink()

    def _shrink(self) -> None:
        free = self._bytes - self._reserved * self._decoder.bytes_per_token
        self._prefixes.shrink(min(free, self._bytes // KNOWN_SHARE))


def _adapters(table: Table, n: int) -> Ints | None:
    """Returns the adapters of the first n rows; None if none has one."""
    adapters = table.adapters[:n]
    return adapters if adapters.max() >= 0 else None


def _prompt(ticket: Ticket) -> Prompt:
    assert ticket.prompt is not None
    return ticket.prompt


def _rest(ticket: Ticket) -> int:
    prompt = _prompt(ticket)
    return len(prompt.ids) - prompt.read
