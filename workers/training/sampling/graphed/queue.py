"""Sampling on a GPU: steps are queued, and what they drew is read one step late.

While the GPU computes a step, the host looks at the tokens of the step before. So a row that has ended is
found out one step too late: the token that it was given since is dropped, and no other row notices. Random
numbers are those of the completion, so tokens are the same as one by one. Where the host must know a token
before the next is drawn (a grammar, a budget for thoughts) it waits for it, once a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from methods.sizes.sampler import MOST_SLOTS, Needs
from workers.training.base.randomness import uniforms
from workers.training.base.transfer import Reading, to_device
from workers.training.sampling.asked import Call
from workers.training.sampling.completing import Completing
from workers.training.sampling.decode_attention import prefill_in
from workers.training.sampling.decode_step import Ints
from workers.training.sampling.draw import way_of_drawing
from workers.training.sampling.graphed.kept import Lease
from workers.training.sampling.graphed.shapes import sizes
from workers.training.sampling.graphed.slots import Slots
from workers.training.sampling.turns import Over
from workers.training.sampling.waiting import Beginning, Waiting

LATE = 1
"""Steps that may be queued whose tokens the host has not read. Chosen: one keeps the GPU at work; each more
would only let rows that have ended go on for longer.
"""


class Queued(NamedTuple):
    """Is what one step draws: for (B,) rows, at their places in what is read. A row of -1 ended before."""

    rows: Ints
    slots: Ints
    at: Ints
    reading: Reading


def needs_of(call: Call) -> Needs:
    """Returns what a call wants of a sampler."""
    G, prompt_columns = call.sampling.samples, call.longest_prompt
    at_once = min(len(call.prompts), max(1, (call.limits.slots or MOST_SLOTS) // G))
    groups = min(len(call.prompts), min(G, 2) * at_once)  # they share slots while their last rows go on
    if call.turns is not None:  # each row that goes on after a reply has a prompt of its own
        groups = at_once * G
        prompt_columns += min(call.sampling.max_tokens, call.policy.context - prompt_columns)
    return Needs(
        rows=at_once * G,
        groups=groups,
        samples=G,
        prompt_columns=prompt_columns,
        columns=int(call.longest.max()),
    )


class QueuedDecoding:
    """Keeps the state of one call."""

    def __init__(self, call: Call, completing: Completing, lease: Lease) -> None:
        self.call = call
        self.sampling = call.sampling
        self.completing = completing
        self.turns = call.turns
        self.limits = call.longest  # (N,)
        self.seeds = call.seeds  # (N,)
        n = len(self.seeds)
        self.written = np.zeros(n, np.int64)  # tokens of earlier turns
        self.counts = np.zeros(n, np.int64)  # tokens of this turn that were read
        self.tokens = np.zeros((n, 64), np.int64)
        self.logprobs = np.zeros((n, 64), np.float32)
        self.end_ids = np.array(sorted(completing.end_ids), np.int64)
        self.waiting = Waiting(call.beginnings, call.limits, is_alone=False)
        self.queue: list[Queued] = []
        self.lease = lease
        self._use_sampler()

    def _use_sampler(self) -> None:
        """Makes the lease's sampler ready, with no row under way."""
        self.sampler = self.lease.sampler
        self.slots = Slots(self.sampler.shape)
        self.most_rows = min(self.lease.needs.rows, self.sampler.shape.slots)
        temperature, top_p = self.sampling.temperature, self.sampling.top_p
        self.sampler.begin(temperature, top_p, way_of_drawing(temperature, top_p))
        self.sampler.prepare(sizes(self.sampler.shape, self.lease.needs))

    def run(self) -> None:
        """Samples all that is asked for."""
        while self._is_under_way:
            self._take_replies()
            self._start_waiting()
            is_queued = self._queue_step()
            self._read(LATE if is_queued and self.completing.budgets is None else 0)

    @property
    def _is_idle(self) -> bool:
        return not self.waiting and not self.queue and not len(self.slots.active)

    @property
    def _is_under_way(self) -> bool:
        return not self._is_idle or (self.turns is not None and self.turns.are_open)

    def _take_replies(self) -> None:
        """Takes in what has come of earlier turns; waits for it where there is nothing else to do."""
        if self.turns is None:
            return
        for found in self.turns.next(wait=self._is_idle):
            if isinstance(found, Over):
                self.completing.keep(found)
                continue
            row = found.prompt * self.sampling.samples + found.sample
            self.written[row], self.limits[row], self.counts[row] = found.written, found.most, 0
            self._widen(found.most)
            self.waiting.add(Beginning(found.tokens, [row], found.turn))

    def _start_waiting(self) -> None:
        """Runs waiting prompts if a good share of the slots is free, and draws their first tokens."""
        free = self._free_rows
        while (first := self.waiting.first) is not None:
            n_active = len(self.slots.active)
            if n_active and free < max(len(first.rows), self.most_rows // 4):
                return
            columns = self.sampler.shape.prompt_columns
            if chosen := self.waiting.take(self.slots.free_groups, self._free_rows, columns):
                self._start(chosen)
            elif n_active or self.queue:
                return
            else:  # all that fits has been sampled
                del self.sampler
                self.lease.enlarge(min(2 * len(first.tokens), self.call.policy.context))
                self._use_sampler()

    @property
    def _free_rows(self) -> int:
        return self.most_rows - len(self.slots.active)

    def _start(self, chosen: Sequence[Beginning]) -> None:
        device = self.sampler.device
        sizes_ = np.array([len(one.rows) for one in chosen])
        lengths = np.array([len(one.tokens) for one in chosen])
        ids = np.zeros((len(chosen), int(lengths.max())), np.int64)
        for i, one in enumerate(chosen):
            ids[i, : lengths[i]] = one.tokens
        rows = np.concatenate([np.array(one.rows) for one in chosen])
        slots, prompts = self.slots.start(rows, sizes_, lengths)
        read = to_device(ids, device), to_device(lengths, device)
        logits = prefill_in(self.call.model, self.sampler.cache, to_device(prompts, device), *read)
        self.completing.begin(chosen)
        logits = logits.index_select(0, to_device(np.repeat(np.arange(len(chosen)), sizes_), device))
        if self.completing.matchers is not None:
            logits = self.completing.matchers.apply(logits, rows.tolist())
        reading = self.sampler.start(logits, slots, uniforms(self.seeds[rows], self.written[rows]))
        self._queued(Queued(rows, slots, np.arange(len(rows)), reading))

    def _queue_step(self) -> bool:
        """Queues a step for the rows under way; says whether there were any."""
        if self.completing.budgets is not None:
            self._read(0)
        if not len(self.slots.active):
            return False
        if not self.waiting:
            self._close_up()
        slots = self.slots.active
        if (numbers := self.slots.next_numbers(self.seeds, self.written)) is not None:
            self.sampler.put_uniforms(slots, numbers)
        if self.slots.has_changed:
            self.sampler.put(self.slots.places())
        size = self.slots.size()
        self.sampler.step(size)
        if self.completing.matchers is not None:
            slots = self._hold(slots)
            if not len(slots):
                return False
        self.slots.counts[slots] += 1
        self._queued(Queued(self.slots.row[slots], slots, slots, self.sampler.draw(size.rows)))
        return True

    def _hold(self, slots: Ints) -> Ints:
        """Holds the rows in these slots to their grammars, by their last tokens; returns those that go on."""
        assert self.completing.matchers is not None
        self._read(0)  # while the GPU computes the logits
        slots = slots[self.slots.row[slots] >= 0]
        if len(slots):
            logits = self.sampler.logits(slots)
            held = self.completing.matchers.apply(logits, self.slots.row[slots].tolist())
            self.sampler.replace_logits(slots, held)
        return slots

    def _queued(self, step: Queued) -> None:
        """Takes note of a step. Rows that need no more than it gives them leave their slots at once."""
        self.queue.append(step)
        is_full = self.slots.counts[step.slots] >= self.limits[step.rows]
        if is_full.any():
            self.slots.leave(step.slots[is_full])

    def _close_up(self) -> None:
        rows, prompts = self.slots.close_up()
        if rows is not None:
            self.sampler.move_rows(*rows)
        if prompts is not None:
            self.sampler.move_prompts(*prompts)

    def _read(self, late: int) -> None:
        """Reads what was drawn, but for the last `late` steps."""
        while len(self.queue) > late:
            self._take(self.queue.pop(0))

    def _take(self, step: Queued) -> None:
        """Writes down what a step drew, and sees which rows end there."""
        found = step.reading.wait()
        alive = step.rows >= 0
        rows, at = step.rows[alive], step.at[alive]
        if not len(rows):
            return
        tokens = found[0].numpy()[at].astype(np.int64)
        logprobs = found[1].view(torch.float32).numpy()[at]
        if self.completing.budgets is not None:
            self._give(step.slots[alive], rows, tokens, logprobs)
        if self.completing.matchers is not None:
            self.completing.matchers.accept(rows.tolist(), tokens.tolist())
        counts = self.counts[rows]
        self._widen(int(counts.max()) + 1)
        self.tokens[rows, counts], self.logprobs[rows, counts] = tokens, logprobs
        self.counts[rows] = counts = counts + 1
        ended = np.isin(tokens, self.end_ids) | (counts >= self.limits[rows])
        if self.completing.stops:
            ended |= self._at_stop(rows, counts, tokens)
        if ended.any():
            self._end(rows[ended])

    def _give(self, slots: Ints, rows: Ints, tokens: Ints, logprobs: Any) -> None:
        """Puts tokens in the place of some that were drawn, on the host and on the device."""
        assert self.completing.budgets is not None
        given = self.completing.budgets.take(rows.tolist(), tokens.tolist())
        if given:
            at = np.array(list(given))
            tokens[at], logprobs[at] = list(given.values()), 0.0
            at = at[self.slots.row[slots[at]] == rows[at]]  # one that needs no more may have left
            self.sampler.give(slots[at], tokens[at])

    def _at_stop(self, rows: Ints, counts: Ints, tokens: Ints) -> Any:
        stops = self.completing.stops
        return [
            stops.may_end(token) and stops.is_complete(self.tokens[row, :n].tolist())
            for row, n, token in zip(rows.tolist(), counts.tolist(), tokens.tolist(), strict=True)
        ]

    def _end(self, rows: Ints) -> None:
        """Hands over rows that have ended. What was queued for them since is dropped."""
        for step in self.queue:
            step.rows[np.isin(step.rows, rows)] = -1
        left = self.slots.active
        left = left[np.isin(self.slots.row[left], rows)]
        if len(left):
            self.slots.leave(left)
        tokens = [self.tokens[row, : self.counts[row]].tolist() for row in rows]
        logprobs = [self.logprobs[row, : self.counts[row]].tolist() for row in rows]
        self.completing.hand_over(rows.tolist(), tokens, logprobs)

    def _widen(self, columns: int) -> None:
        more = columns - self.tokens.shape[1]
        if more > 0:
            room = ((0, 0), (0, max(more, self.tokens.shape[1])))
            self.tokens, self.logprobs = np.pad(self.tokens, room), np.pad(self.logprobs, room)
