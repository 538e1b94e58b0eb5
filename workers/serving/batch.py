"""Rows that are decoded together, step after step: requests join and leave between any two."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import structlog
import torch

from app.errors import ApiError, ServerError
from workers.serving.ahead import Ahead
from workers.serving.choosing import Table, choose, close_thoughts, forget, note, unheld
from workers.serving.fast_path import FastPath, Ready
from workers.serving.general_path import GeneralPath
from workers.serving.parts.answer_stops import AnswerStops
from workers.serving.requests import Alternatives, Started, Token
from workers.serving.tickets import Finish, Row, Ticket
from workers.training.base.errors import GrammarFailed
from workers.training.sampling.decode_step import ActiveRows

if TYPE_CHECKING:
    from workers.serving.counts import Counts
    from workers.serving.requests import ModelFiles

log = structlog.get_logger(__name__)

READ_SECONDS = 0.03
"""How long reading prompts may keep those waiting whose completions are under way, each step. Chosen: as long
as a chunk of a stream may take.
"""
READ_ALONE_SECONDS = 0.3
"""The same where nobody is: those who join meanwhile wait for so long. Chosen, not measured."""
NOTHING: Mapping[int, Any] = MappingProxyType({})
LEAST_READ = 32
"""Tokens that are read at a time at least. Chosen, not measured."""


class Pace:
    """Knows how fast prompts are read, to cut them into pieces that take no longer than they may."""

    def __init__(self) -> None:
        self._per_second = LEAST_READ / READ_SECONDS

    def tokens(self, seconds: float) -> int:
        """Returns how many tokens are read in so long, at least a few."""
        return max(LEAST_READ, int(self._per_second * seconds))

    def note(self, tokens: int, seconds: float, most: int) -> None:
        """Takes note of a pass. One that read much less than it might have says little of the pace."""
        found = tokens / max(seconds, 1e-6)
        if found > self._per_second:
            self._per_second = found
        elif 2 * tokens > most:
            self._per_second += (found - self._per_second) / 2


class Base(Protocol):
    """Is what a batch needs to know of its base."""

    model: Any
    end_ids: frozenset[int]
    context: int
    vocabulary: int

    def release(self, files: ModelFiles) -> None:
        """Takes note that a request no longer uses a model."""


class Batch:
    """Holds the rows of one base that are decoded the same way."""

    def __init__(self, base: Base, path: FastPath | GeneralPath, counts: Counts) -> None:
        self._base = base
        self._path = path
        self._counts = counts
        self._rows: list[Row] = []
        self._table = Table(path.rows)
        self._last = torch.zeros(path.rows, dtype=torch.long, device=base.model.device)
        self._active: ActiveRows | None = None
        self._tickets: dict[Ticket, None] = {}
        self._promised = 0
        """Samples that were granted and have not begun."""
        self._pace = Pace()
        self._ahead = Ahead(base.vocabulary, base.end_ids)

    def __len__(self) -> int:
        """Counts the completions under way."""
        return len(self._rows)

    @property
    def is_idle(self) -> bool:
        """Says whether nothing is under way."""
        return not self._tickets

    @property
    def most_tokens(self) -> int:
        """Returns the most tokens of one sequence, prompt and completion together."""
        return min(self._base.context, self._path.most_tokens)

    @property
    def is_full(self) -> bool:
        """Says whether there is no room for another row."""
        return len(self._rows) + self._promised >= self._path.rows

    def fits(self, ticket: Ticket) -> bool:
        """Says whether there is room for another sample of a request."""
        return not self.is_full and self._path.fits(ticket)

    def take(self, ticket: Ticket, adapter: int) -> bool:
        """Lets a request have another sample, its first or a further one; says whether that was its last."""
        if ticket.prompt is None:
            self._tickets[ticket] = None
            self._path.begin(ticket, adapter)
        if ticket.limit == 0:
            return True
        self._path.grant(ticket)
        self._promised += 1
        return ticket.granted == ticket.request.samples

    def step(self) -> None:
        """Reads a piece of what waits to be read, and the last token of each row; draws the next."""
        if self._path.is_reading:
            self._read()
        if self._rows:
            self._decode()
        self._begin(self._path.take_ready(len(self._rows)))

    def _read(self) -> None:
        most = self._pace.tokens(READ_SECONDS if self._rows else READ_ALONE_SECONDS)
        start = time.perf_counter()
        tokens = self._path.read(most)
        self._pace.note(tokens, time.perf_counter() - start, most)

    def _decode(self) -> None:
        n, start = len(self._rows), time.thread_time()
        if self._active is None:
            self._active = self._path.active(self._table, n)
            self._ahead.take(self._rows, self._table)
        steps = 0 if self._path.is_reading else self._decode_ahead(self._active)
        if not steps:
            self._take(self._path.decode(self._active, self._last[:n], self._table), 0)
        self._ahead.note(max(1, steps), time.thread_time() - start)

    def _decode_ahead(self, active: ActiveRows) -> int:
        """Does several steps, up to the first at which a row ends; returns how many, 0 if that is none."""
        rows, most = list(self._rows), self._ahead.steps(self._table)
        if most == 1:
            return 0
        draws = self._ahead.draws(self._table, most)
        steps = self._path.ahead(active, self._last[: len(rows)], self._table, draws)
        self._counts.sampled_tokens += steps * len(rows)
        gone: dict[int, bool] = {}
        told = zip(draws.tokens[:steps].tolist(), draws.logprobs[:steps].tolist(), strict=True)
        for tokens, logprobs in told:
            gone = self._note(rows, tokens, logprobs, 0) | gone  # cancelled ones are gone from then on
        self._hand_on(rows)
        self._let_go(gone)
        return steps

    def _begin(self, begun: Sequence[Ready]) -> None:
        first = len(self._rows)
        for ticket, slots, _ in begun:
            prompt = ticket.prompt
            assert prompt is not None
            if ticket.started == 0:
                self._counts.prompt_tokens += len(prompt.ids)
                self._counts.cached_tokens += prompt.cached
                ticket.tell(Started(len(prompt.ids), prompt.cached, prompt.scores))
            for slot in slots:
                row = _row(ticket, slot)
                self._table.fill(len(self._rows), row, prompt.adapter)
                self._rows.append(row)
                ticket.started += 1
                self._promised -= 1
            if ticket.limit == 0:
                self._end(ticket)
        if len(self._rows) > first:
            self._take(torch.cat([ready.logits for ready in begun if len(ready.slots)]), first)
            self._active = None

    def _take(self, logits: torch.Tensor, first: int) -> None:
        """Draws a token for each row from `first` on, tells of them, and lets those go that have ended."""
        rows, table = self._rows[first:], self._table
        chosen = close_thoughts(choose(logits, rows, table, first), rows)
        self._last[first : len(self._rows)] = chosen.tokens
        table.counts[first : len(self._rows)] += 1
        self._counts.sampled_tokens += len(rows)
        gone = self._note(rows, chosen.token_list, chosen.logprobs, first, chosen.tops, chosen.failed)
        self._hand_on(rows)
        self._let_go(gone)

    def _note(
        self,
        rows: Sequence[Row],
        tokens: Sequence[int],
        logprobs: Sequence[float],
        first: int,
        tops: Mapping[int, Alternatives] = NOTHING,
        failed: Mapping[int, ApiError] = NOTHING,
    ) -> dict[int, bool]:
        """Takes note of a token of each row; returns the rows that have ended, and whether each is whole."""
        gone: dict[int, bool] = {}
        has_changed = bool(self._table.is_changed[first : len(self._rows)].any())
        ends = self._base.end_ids
        for i, row in enumerate(rows):
            ticket, token, logprob = row.ticket, tokens[i], logprobs[i]
            row.tokens.append(token)
            if ticket.is_over:
                gone[first + i] = False
                continue
            if has_changed or logprob != logprob:  # NaN is not itself
                error = self._fault(row, token, logprob, failed.get(i))
                if error is not None:
                    ticket.fail(error)
                    gone[first + i] = False
                    continue
            finish: Finish | None = None
            if token in ends or row.reaches_stop():
                finish = "stop"
            elif len(row.tokens) == ticket.limit:
                finish = "length"
            if finish is not None:
                gone[first + i] = True
            ticket.told.append(Token(row.sample, token, logprob, tops.get(i, ()), finish))
        return gone

    def _hand_on(self, rows: Sequence[Row]) -> None:
        """Tells the requests of these rows of their tokens."""
        for row in rows:
            ticket = row.ticket
            if ticket.told:
                tokens, ticket.told = ticket.told, []
                ticket.tell(tokens)

    def _let_go(self, gone: Mapping[int, bool]) -> None:
        for i in sorted(gone, reverse=True):
            self._remove(i, is_whole=gone[i])

    def _fault(self, row: Row, token: int, logprob: float, failed: ApiError | None) -> ApiError | None:
        """Takes note of a row's token; returns what is wrong with it."""
        if failed is not None:
            return failed
        if logprob != logprob:
            return ServerError(
                f"The model '{row.ticket.request.model.name}' computes numbers that are not finite."
            )
        try:
            note(row, token)
        except GrammarFailed as problem:
            return unheld(row, problem)
        return None

    def _remove(self, i: int, *, is_whole: bool) -> None:
        """Lets a row go; the last one takes its slot."""
        row, last = self._rows[i], len(self._rows) - 1
        forget(row)
        if is_whole and row.sample == 0:
            self._path.keep(row, i)
        self._path.remove_row(row, i, last, len(self._rows[last].tokens))
        if i != last:
            self._rows[i] = self._rows[last]
            self._table.move(last, i)
            self._last[i] = self._last[last]
        self._rows.pop()
        self._active = None
        ticket = row.ticket
        ticket.ended += 1
        if ticket.ended == ticket.request.samples or (ticket.is_over and ticket.ended == ticket.started):
            self._end(ticket)

    def _end(self, ticket: Ticket) -> None:
        if ticket not in self._tickets:
            return
        del self._tickets[ticket]
        self._promised -= ticket.granted - ticket.started
        self._path.end(ticket)
        if not ticket.is_over:
            self._counts.finished += 1
        ticket.is_over = True
        self._base.release(ticket.request.model)

    def drop(self, ticket: Ticket) -> None:
        """Lets a request go that is over: its rows leave, and what waits of it."""
        for i in reversed(range(len(self._rows))):
            if self._rows[i].ticket is ticket:
                self._remove(i, is_whole=False)
        self._end(ticket)

    def fail(self, error: ApiError) -> list[Ticket]:
        """Ends every request with an error; the batch is of no use afterwards."""
        tickets = list(self._tickets)
        for ticket in tickets:
            ticket.fail(error)
            self._base.release(ticket.request.model)
        self._tickets.clear()
        return tickets


def _row(ticket: Ticket, slot: int) -> Row:
    """Returns the next completion of a request."""
    row, request = Row(ticket, ticket.started, slot), ticket.request
    reader = request.options.reader
    if reader is not None and ticket.stops is not None:
        row.answer_stops = AnswerStops(reader, request.prompt, ticket.stops, ticket.call_tag)
    if ticket.budgets is not None:
        ticket.budgets.begin([row.sample], request.prompt)
    return row
