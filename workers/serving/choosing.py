"""From logits to tokens: one draw for all rows of a step, each with the options of its own request.

B rows, V tokens in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.errors import ApiError, BadRequest
from workers.serving.requests import Alternatives, Options, PromptToken
from workers.serving.tickets import Row
from workers.training.base.errors import GrammarFailed
from workers.training.base.randomness import keyed_seed, uniforms
from workers.training.model.grammar import Grammar
from workers.training.sampling.draw import draw_each


class Table:
    """Holds what every step needs of the rows, in slots 0, 1, ...; the rest is in `Row`."""

    def __init__(self, rows: int) -> None:
        self.slots = np.zeros(rows, np.int64)
        """Of the prompts."""
        self.counts = np.zeros(rows, np.int64)
        self.seeds = np.zeros(rows, np.uint64)
        self.temperatures = np.zeros(rows, np.float32)
        self.top_ps = np.zeros(rows, np.float32)
        self.adapters = np.full(rows, -1, np.int64)
        self.tops = np.zeros(rows, np.int64)
        """Alternatives that are told with each token."""
        self.is_changed = np.zeros(rows, np.bool_)
        """Its logits are changed before a token is drawn: by a bias, penalties or a grammar."""
        self.limits = np.zeros(rows, np.int64)
        """The most tokens of it."""
        self.needs_host = np.zeros(rows, np.bool_)
        """More than a bias and a draw at a temperature stands between two steps of it."""
        self._columns = [column for column in vars(self).values() if isinstance(column, np.ndarray)]

    def fill(self, i: int, row: Row, adapter: int) -> None:
        """Writes down a new row."""
        request, options = row.ticket.request, row.ticket.request.options
        self.slots[i], self.counts[i], self.adapters[i] = row.slot, 0, adapter
        self.seeds[i] = keyed_seed("chat", request.seed, row.sample)
        self.temperatures[i], self.top_ps[i] = options.temperature, options.top_p
        self.tops[i] = options.top_logprobs
        is_held = options.grammar is not None or _is_penalised(options)
        self.is_changed[i] = is_held or bool(options.logit_bias)
        self.limits[i] = row.ticket.limit
        is_plain = options.temperature > 0 and options.top_p >= 1 and not options.top_logprobs
        is_watched = row.ticket.stops is not None or row.ticket.budgets is not None
        self.needs_host[i] = is_held or not is_plain or is_watched

    def move(self, source: int, target: int) -> None:
        """Moves a row to another slot."""
        for column in self._columns:
            column[target] = column[source]


class Chosen(NamedTuple):
    """Holds what was drawn.

    Attributes:
        tokens, logprobs: (B,), on the device and on the host.
        tops: by row, of those that are told alternatives.
        failed: by row, of those whose grammar failed.
    """

    tokens: Tensor
    token_list: list[int]
    logprobs: list[float]
    tops: dict[int, Alternatives]
    failed: dict[int, ApiError]


def choose(logits: Tensor, rows: Sequence[Row], table: Table, first: int) -> Chosen:
    """Draws a token for each of `rows`, which are in the slots from `first` on, from (B, V) logits.

    The logits may be overwritten.
    """
    at = slice(first, first + len(rows))
    changed = table.is_changed[at]
    failed: dict[int, ApiError] = {}
    if changed.any():
        failed = _change(logits, rows, changed.nonzero()[0].tolist())
    uniform = torch.from_numpy(uniforms(table.seeds[at], table.counts[at])).to(logits.device)
    tokens, logprobs = draw_each(logits, uniform, table.temperatures[at], table.top_ps[at])
    token_list, told = tokens.tolist(), logprobs.tolist()
    tops: dict[int, Alternatives] = {}
    if table.tops[at].any():
        for i, top in _tops(logits, table.tops[at], table.temperatures[at]).items():
            # The drawn token has one logprob, not two that are rounded differently.
            tops[i] = tuple((token, told[i] if token == token_list[i] else each) for token, each in top)
    return Chosen(tokens, token_list, told, tops, failed)


def close_thoughts(chosen: Chosen, rows: Sequence[Row]) -> Chosen:
    """Puts what closes thoughts in the place of tokens that were drawn, where a budget is used up."""
    for i, row in enumerate(rows):
        budgets = row.ticket.budgets
        if budgets is None or i in chosen.failed:
            continue
        for token in budgets.take([row.sample], [chosen.token_list[i]]).values():
            chosen.tokens[i] = chosen.token_list[i] = token
            chosen.logprobs[i] = 0.0
            chosen.tops.pop(i, None)
    return chosen


def unheld(row: Row, problem: GrammarFailed) -> BadRequest:
    """Returns what is told of a request whose completion cannot be held to its grammar."""
    param = row.ticket.request.options.held_by
    code = "invalid_json_schema" if param == "response_format" else "invalid_function_parameters"
    return BadRequest(str(problem), param=param, code=code)


def note(row: Row, token: int) -> None:
    """Takes note of a token that was drawn, for the grammar and the penalties of its row."""
    options = row.ticket.request.options
    if row.matcher is not None and options.grammar is not None:
        options.grammar.consume(row.matcher, token)
    if _is_penalised(options):
        row.counts[token] = row.counts.get(token, 0) + 1


def forget(row: Row) -> None:
    """Gives the state of a row's grammar back."""
    grammar = row.ticket.request.options.grammar
    if row.matcher is not None and grammar is not None:
        grammar.end(row.matcher)
        row.matcher = None


def _is_penalised(options: Options) -> bool:
    return bool(options.frequency_penalty or options.presence_penalty)


def _change(logits: Tensor, rows: Sequence[Row], changed: Sequence[int]) -> dict[int, ApiError]:
    """Applies biases, penalties and grammars to the logits of some rows, in place."""
    by_grammar: dict[int, list[int]] = {}
    for i in changed:
        ticket, options = rows[i].ticket, rows[i].ticket.request.options
        if ticket.bias is not None:
            ids, values = ticket.bias
            logits[i, ids] += values.to(logits.dtype)
        if rows[i].counts:
            _penalise(logits[i], rows[i].counts, options)
        if options.grammar is not None:
            by_grammar.setdefault(id(options.grammar), []).append(i)
    failed: dict[int, ApiError] = {}
    for alike in by_grammar.values():
        failed |= _hold(logits, rows, alike)
    return failed


def _penalise(logits: Tensor, counts: dict[int, int], options: Options) -> None:
    ids = torch.tensor(list(counts), device=logits.device)
    times = torch.tensor(list(counts.values()), device=logits.device, dtype=logits.dtype)
    logits[ids] -= times * options.frequency_penalty + options.presence_penalty


def _hold(logits: Tensor, rows: Sequence[Row], alike: Sequence[int]) -> dict[int, ApiError]:
    """Holds rows to their grammar, which is the same; if it fails, those alone with which it does."""
    grammar: Any = rows[alike[0]].ticket.request.options.grammar
    try:
        _mask(logits, rows, alike, grammar)
    except GrammarFailed as problem:
        if len(alike) == 1:
            return {alike[0]: unheld(rows[alike[0]], problem)}
        return {i: error for each in alike for i, error in _hold(logits, rows, [each]).items()}
    return {}


def _mask(logits: Tensor, rows: Sequence[Row], alike: Sequence[int], grammar: Grammar) -> None:
    for i in alike:
        if rows[i].matcher is None:
            rows[i].matcher = grammar.start(rows[i].ticket.request.prompt)
    at = torch.tensor(alike, device=logits.device)
    logits[at] = grammar.hold(logits[at], [rows[i].matcher for i in alike])


def _tops(
    logits: Tensor, tops: NDArray[np.int64], temperatures: NDArray[np.float32]
) -> dict[int, Alternatives]:
    asked = tops.nonzero()[0]
    at = torch.from_numpy(asked).to(logits.device)
    divisors = torch.from_numpy(np.where(temperatures > 0, temperatures, 1)[asked]).to(logits.device)
    values, ids = _most_likely(logits[at].float() / divisors[:, None], int(tops.max()))
    found = zip(asked.tolist(), ids.tolist(), values.tolist(), strict=True)
    return {i: tuple(zip(each[: tops[i]], told[: tops[i]], strict=True)) for i, each, told in found}


def _most_likely(logits: Tensor, most: int) -> tuple[Tensor, Tensor]:
    found = torch.log_softmax(logits, -1).topk(min(most, logits.shape[-1]))
    return found.values, found.indices


def scores(logits: Tensor, tokens: Sequence[int], alternatives: int) -> list[PromptToken]:
    """Returns what (n, V) logits say of the n tokens that came after."""
    logprobs = torch.log_softmax(logits.float(), -1)
    own = logprobs.gather(-1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
    tops: list[Alternatives] = [()] * len(tokens)
    if alternatives:
        most = logprobs.topk(min(alternatives, logprobs.shape[-1]))
        pairs = zip(most.indices.tolist(), most.values.tolist(), strict=True)
        tops = [tuple(zip(ids, values, strict=True)) for ids, values in pairs]
    return [PromptToken(*told) for told in zip(tokens, own, tops, strict=True)]
