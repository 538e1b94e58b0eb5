"""Prompts and rows of models on the general path: the model's own cache, a copy for each sample.

Known beginnings are not reused, and a prompt is read in one pass: what such a model keeps cannot be cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from workers.serving.choosing import Table, scores
from workers.serving.fast_path import Ready
from workers.serving.requests import PromptToken
from workers.serving.tickets import Prompt, Row, Ticket
from workers.training.sampling.decode_step import ActiveRows
from workers.training.sampling.general_decoder import GeneralDecoder, bytes_kept

if TYPE_CHECKING:
    from workers.training.kernels.decode_ahead import Draws

MOST_TOGETHER = 4096
"""Padded tokens of prompts that are read in one pass, unless one has more. Chosen, not measured."""


class GeneralPath:
    """Holds the memory of one batch."""

    is_reading = False

    def __init__(self, model: Any, rows: int, n_bytes: int) -> None:
        self._model = model
        self.rows = rows
        self._bytes = n_bytes
        self._always, self._each = bytes_kept(model)
        self._decoder = self._empty()
        self._pending: list[Ticket] = []
        self._reserved = 0

    def _empty(self) -> GeneralDecoder:
        return GeneralDecoder(self._model, self.rows, self.rows, samples=1)

    @property
    def most_tokens(self) -> int:
        """Returns the most tokens of one sequence that the memory holds."""
        return (self._bytes - self._always) // max(1, self._each)

    def _needed(self, ticket: Ticket) -> int:
        return self._always + self._each * (len(ticket.request.prompt) + ticket.limit)

    def fits(self, ticket: Ticket) -> bool:
        """Says whether there is memory for another sample of a request."""
        return self._reserved + self._needed(ticket) <= self._bytes

    def begin(self, ticket: Ticket, _adapter: int) -> None:
        """Takes a prompt in."""
        prompt = ticket.prompt = Prompt(list(ticket.request.prompt), -1)
        if ticket.request.options.prompt_logprobs is not None:
            ids = torch.tensor([prompt.ids], device=self._model.device)
            logits = self._model(input_ids=ids, use_cache=False).logits[0, :-1]
            rest = scores(logits, prompt.ids[1:], ticket.request.options.prompt_logprobs)
            prompt.scores = [PromptToken(prompt.ids[0], None, ()), *rest]
        if ticket.limit == 0:
            self._pending.append(ticket)

    def grant(self, ticket: Ticket) -> None:
        """Sets memory aside for another sample."""
        self._reserved += self._needed(ticket)
        ticket.granted += 1
        if ticket not in self._pending:
            self._pending.append(ticket)

    def read(self, _most: int) -> int:
        """Reads nothing: a prompt is read as its samples begin."""
        return 0

    def take_ready(self, first: int) -> list[Ready]:
        """Reads the prompts of samples that may begin, which take the rows from `first` on."""
        if not self._pending:
            return []
        if first == 0:
            self._decoder = self._empty()
        chosen, prompts = self._choose()
        logits = self._read(first, prompts) if prompts else torch.empty(0, 0)
        found, row = [], 0
        for ticket, n in chosen:
            found.append(Ready(ticket, [0] * n, logits[row : row + n]))
            row += n
        return found

    def _read(self, first: int, prompts: Sequence[Sequence[int]]) -> Tensor:
        lengths = torch.tensor([len(ids) for ids in prompts])
        padded = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long)
        for row, ids in enumerate(prompts):
            padded[row, : len(ids)] = torch.tensor(ids)
        device = self._model.device
        return self._decoder.prefill(first, padded.to(device), lengths.to(device))

    def _choose(self) -> tuple[list[tuple[Ticket, int]], list[list[int]]]:
        """Takes the requests whose samples begin now, and returns the prompt of each sample."""
        chosen: list[tuple[Ticket, int]] = []
        prompts: list[list[int]] = []
        while self._pending:
            ticket = self._pending[0]
            assert ticket.prompt is not None
            own = [ticket.prompt.ids] * (ticket.granted - ticket.started)
            longest = max(map(len, [*prompts, *own]), default=0)
            if chosen and (len(prompts) + len(own)) * longest > MOST_TOGETHER:
                break
            chosen.append((self._pending.pop(0), len(own)))
            prompts += own
        return chosen, prompts

    def active(self, table: Table, n: int) -> ActiveRows:
        """Returns the first n rows as the decoder takes them."""
        return ActiveRows(table.slots[:n], table.counts[:n], np.ones(1, np.int64))

    def decode(self, active: ActiveRows, ids: Tensor, _table: Table) -> Tensor:
        """Returns the logits of the next token of each row, (B, V), given its last."""
        return self._decoder(active, ids)

    def ahead(self, _active: ActiveRows, _ids: Tensor, _table: Table, _draws: Draws) -> int:
        """Returns 0: each step of (B,) ids is a call of its own."""
        return 0

    def keep(self, row: Row, i: int) -> None:
        """Keeps nothing."""

    def remove_row(self, row: Row, i: int, last: int, _last_width: int) -> None:
        """Frees slot i; the row in slot `last`, the last, moves there."""
        self._decoder.move_completions(torch.tensor([last]), torch.tensor([i]), 0)
        self._reserved -= self._needed(row.ticket)

    def end(self, ticket: Ticket) -> None:
        """Lets go of samples that never began."""
        self._reserved -= self._needed(ticket) * (ticket.granted - ticket.started)
        if ticket in self._pending:
            self._pending.remove(ticket)
