"""The GPU's side of sampling: caches, and graphs that decode a step and draw its tokens.

What a step reads and writes lies where every step finds it: last tokens, places, random numbers, logits. A
step counts its rows on by itself, so that the host says something only when rows come, end or move. Rows that
are free are computed too, and nobody reads what comes of it: they write to column 0 of their slots.

S slots, n prompts' slots, G samples of a prompt at most, B rows, V tokens in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.sizes.sampler import Shape
from workers.training.base.transfer import Reading, overwrite, to_device
from workers.training.sampling.decode_step import Ints, Span, Step
from workers.training.sampling.draw import Way, draw_by_tensors
from workers.training.sampling.graphed.graphs import Capture, Graphs, Run
from workers.training.sampling.graphed.shapes import Size
from workers.training.sampling.slot_cache import LayerShape, SlotCache


class StepFunction(NamedTuple):
    """Computes a model's decode steps.

    Attributes:
        decode: reads each last token, keeps its keys and values, and returns the logits of the next: (B, V).
            It is captured, with the memory of the weights that it reads.
        follow: lets it compute by the weights as they are now, which may have changed in place since; it may
            not move what `decode` reads.
    """

    decode: Callable[[SlotCache, Step], Tensor]
    follow: Callable[[], None] = lambda: None


DRAWS_AHEAD = 32
"""Random numbers that lie ready for each row. Chosen: a copy of (S, 32) numbers every 32 steps."""


class Places(NamedTuple):
    """Says where rows stand, for each slot; 0 in all for a slot that is free.

    Attributes:
        positions: (S,) of the last token in the sequence.
        columns: (S,) of the last token in the completion.
        drawn: (S,) which of the random numbers that lie ready is next.
        moving: (S,) 1 for a row that is sampled, 0 for a free slot.
        place: (S,) where each is found in `source`.
        lengths: (n,) of prompts; 1 where there is none.
        source: (n * G,) the slot in each place of each group, any for an empty place.
    """

    positions: Ints
    columns: Ints
    drawn: Ints
    moving: Ints
    place: Ints
    lengths: Ints
    source: Ints

    @classmethod
    def idle(cls, shape: Shape) -> Places:
        """Returns those of no row."""
        S, n = shape.slots, shape.groups
        rows = np.zeros((5, S), np.int64)
        return cls(*rows, np.ones(n, np.int64), np.zeros(n * shape.samples, np.int64))  # type: ignore[call-arg]


class Sampler:
    """Holds a model's caches and graphs for rows of one shape."""

    def __init__(
        self,
        layers: Sequence[LayerShape],
        like: Tensor,
        shape: Shape,
        function: StepFunction,
        capture: Capture | None,
    ) -> None:
        """Allocates all memory but that of logits.

        Args:
            layers: what each layer keeps of a token, in the dtype of `like` and on its device.
            function: computes the steps.
            capture: makes a graph of a step; None runs every step kernel by kernel.

        Raises:
            torch.OutOfMemoryError: there is too little memory for the shape.
        """
        self.shape = shape
        self.device = like.device
        self.cache = SlotCache(
            layers,
            like,
            groups=shape.groups,
            prompt_columns=shape.prompt_columns,
            slots=shape.slots,
            columns=shape.columns,
        )
        self._capture = capture
        S, n = shape.slots, shape.groups
        self._tokens = torch.zeros(S, dtype=torch.long, device=self.device)
        self._sizes = [S, S, S, S, S, n, n * shape.samples]
        self._numbers = torch.zeros(sum(self._sizes), dtype=torch.long, device=self.device)
        self._uniforms = torch.zeros(S, DRAWS_AHEAD, device=self.device)
        self._temperature = torch.ones(1, device=self.device)
        self._top_p = torch.ones(1, device=self.device)
        self._way: Way = "plain"
        self._written = torch.zeros(2, S, dtype=torch.int32, device=self.device)  # tokens; bits of logprobs
        self._logits = torch.zeros(0, device=self.device)
        self.use(function)

    def use(self, function: StepFunction) -> None:
        """Computes steps by this function from now on, and lets go of the graphs of what was before."""
        self._function = function
        self._decodes, self._draws = Graphs(self._capture), Graphs(self._capture)
        self._decode_runs: dict[Size, Run] = {}
        self._draw_runs: dict[tuple[int, Way], Run] = {}

    def begin(self, temperature: float, top_p: float, way: Way) -> None:
        """Sets how tokens are drawn from now on, by the weights as they are."""
        self._function.follow()
        self._way = way
        overwrite(self._temperature, np.full(1, temperature or 1.0, np.float32))
        overwrite(self._top_p, np.full(1, top_p, np.float32))

    def prepare(self, sizes: Iterable[Size]) -> None:
        """Captures the steps of these sizes that are not captured yet. No row may be under way."""
        missing = [
            size
            for size in sizes
            if size not in self._decode_runs or (size.rows, self._way) not in self._draw_runs
        ]
        if not missing:
            return
        self.put(Places.idle(self.shape))
        for size in missing:
            if size not in self._decode_runs:
                self._decode_runs[size] = _captured(self._decodes, self._step(size))
            draw = (size.rows, self._way)
            if draw not in self._draw_runs:
                self._draw_runs[draw] = _captured(self._draws, self._drawing(*draw))

    def put(self, places: Places) -> None:
        """Says where rows stand, for the next step."""
        overwrite(self._numbers, np.concatenate(places))

    def put_uniforms(self, slots: Ints, numbers: NDArray[np.float32]) -> None:
        """Lays random numbers ready for rows: (B,) slots, (B, DRAWS_AHEAD)."""
        ready = np.zeros((self.shape.slots, DRAWS_AHEAD), np.float32)
        ready[slots] = numbers
        overwrite(self._uniforms, ready)

    def start(self, logits: Tensor, slots: Ints, uniform: NDArray[np.float32]) -> Reading:
        """Draws first tokens for rows in (B,) slots, each from its own logits, (B, V)."""
        numbers = to_device(uniform, self.device)
        tokens, logprobs = draw_by_tensors(self._way, logits, numbers, self._temperature, self._top_p)
        self._tokens.index_copy_(0, to_device(slots, self.device), tokens)
        return Reading(torch.stack([tokens.int(), logprobs.float().view(torch.int32)]))

    def give(self, slots: Ints, tokens: Ints) -> None:
        """Puts tokens in the place of those that rows in (B,) slots have drawn last."""
        self._tokens.index_copy_(0, to_device(slots, self.device), to_device(tokens, self.device))

    def step(self, size: Size) -> None:
        """Reads each row's last token and computes the logits of its next. The size must be prepared."""
        self._decode_runs[size]()

    def logits(self, slots: Ints) -> Tensor:
        """Returns a copy of the logits of rows in (B,) slots: (B, V)."""
        return self._logits.index_select(0, to_device(slots, self.device))

    def replace_logits(self, slots: Ints, logits: Tensor) -> None:
        """Puts (B, V) logits in the place of those of rows in (B,) slots."""
        self._logits.index_copy_(0, to_device(slots, self.device), logits)

    def draw(self, rows: int) -> Reading:
        """Draws the next token of the first `rows` slots and counts them on; returns what was drawn."""
        self._draw_runs[rows, self._way]()
        return Reading(self._written)

    def move_rows(self, sources: Ints, targets: Ints, width: int) -> None:
        """Moves rows of at most `width` tokens from slots, (B,), to free ones, (B,)."""
        at, to = to_device(sources, self.device), to_device(targets, self.device)
        self.cache.move_completions(at, to, width)
        self._tokens.index_copy_(0, to, self._tokens.index_select(0, at))

    def move_prompts(self, sources: Ints, targets: Ints, width: int) -> None:
        """Moves prompts of at most `width` tokens from slots, (n,), to free ones, (n,)."""
        self.cache.move_prompts(to_device(sources, self.device), to_device(targets, self.device), width)

    def _step(self, size: Size) -> Run:
        shape = self.shape
        rows, groups = size.rows, min(size.rows, shape.groups)
        positions, columns, _, _, place, lengths, source = torch.split(self._numbers, self._sizes)
        step = Step(
            ids=self._tokens[:rows],
            positions=positions[:rows],
            columns=columns[:rows],
            prompt_lengths=lengths[:groups],
            source=source[: groups * shape.samples],
            place=place[:rows],
            completion_spans=(Span(0, rows, size.columns, is_full=False),),
            prompt_spans=(Span(0, groups, shape.prompt_columns, is_full=False),),
            reach=0,  # whoever begins a call has asked whether its longest sequence fits a window
        )

        def run() -> Tensor:
            logits = self._function.decode(self.cache, step)
            if not len(self._logits):
                self._logits = logits.new_zeros(shape.slots, logits.shape[1])
            return self._logits[:rows].copy_(logits)

        return run

    def _drawing(self, rows: int, way: Way) -> Run:
        S = self.shape.slots
        counted, moving = self._numbers[: 3 * S].view(3, S)[:, :rows], self._numbers[3 * S : 4 * S][:rows]
        next_number = counted[2][:, None]
        logprobs_written = self._written[1].view(torch.float32)

        def run() -> Tensor:
            uniform = self._uniforms[:rows].gather(1, next_number)[:, 0]
            tokens, logprobs = draw_by_tensors(
                way, self._logits[:rows], uniform, self._temperature, self._top_p
            )
            self._tokens[:rows].copy_(tokens)
            self._written[0, :rows].copy_(tokens)
            logprobs_written[:rows].copy_(logprobs)
            return counted.add_(moving)

        return run


def _captured(graphs: Graphs, run: Run) -> Run:
    """Returns a step as a graph. It is run once before: what a first run sets up is no part of a graph."""
    run()
    return graphs.of(run)
