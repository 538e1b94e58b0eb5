"""Decoding by a model's own forward and its own cache class, for models on the general path.

Prompts are read once each; what the model keeps of one, keys and values or a recurrent state, is then copied
for every completion of its group. Completions that started together are a cohort with one cache. Prompts of
different lengths share a cohort, padded on the left, only where the model was seen to mask padding rightly;
else each length is a cohort of its own. A model whose cached steps are not what its whole forward gives
reads the whole sequence at every step.

B active completions, n prompts, L tokens of prompt and completion, V tokens in the vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from workers.training.model import attention
from workers.training.sampling.decode_step import ActiveRows, Ints
from workers.training.sampling.trials import LENGTHS, SAMPLES, is_right

Way = Literal["padded", "equal lengths", "whole sequences"]

WAY = "cherry_way_of_sampling"
"""The attribute of a model that keeps how it can be sampled from; its copies have it too."""

KEPT_ROWS = 0.75
"""The share of a cohort's rows still active below which the others are dropped: dropping copies its cache.
Chosen, not measured.
"""


@dataclass
class _Cohort:
    """Holds completions of the same padded length, and what the model keeps of them.

    Attributes:
        ids: (B, L) what was read, padded on the left.
        mask: (B, L) 1 for tokens, 0 for padding; None without any.
        cache: the model's own; None where whole sequences are read.
    """

    ids: Tensor
    mask: Tensor | None
    cache: Any

    def keep(self, rows: Tensor) -> None:
        """Keeps these rows, each as often as it is named, in this order."""
        self.ids = self.ids[rows]
        self.mask = None if self.mask is None else self.mask[rows]
        if self.cache is not None:
            self.cache.reorder_cache(rows)

    def extend(self, ids: Tensor) -> None:
        """Takes in the next token of each row, (B,)."""
        self.ids = torch.cat([self.ids, ids[:, None]], 1)
        self.mask = None if self.mask is None else pad(self.mask, (0, 1), value=1)


class GeneralDecoder:
    """Is the cache of one call of the sampler, and what decodes over it."""

    def __init__(self, model: Any, groups: int, slots: int, samples: int, way: Way | None = None) -> None:
        """Makes an empty one, for `samples` completions of each prompt."""
        self.groups, self.slots = groups, slots
        self._model = model
        self._samples = samples
        self._way = way or way_of(model)
        known = inspect.signature(model.forward).parameters
        self._cache_name = "cache_params" if "cache_params" in known else "past_key_values"
        self._known = known.keys()
        self._cohorts: dict[int, _Cohort] = {}
        self._started = 0
        self._cohort_of = np.zeros(0, dtype=np.int64)  # (B,) by slot
        self._row_of = np.zeros(0, dtype=np.int64)  # (B,) by slot

    def prefill(self, first: int, ids: Tensor, lengths: Tensor, samples: Ints | None = None) -> Tensor:
        """Reads prompts, whose completions take the slots from `first` on; returns the next token's logits.

        (n, L) ids, padded on the right, (n,) lengths, and how many completions each has, (n,), where that is
        not the call's number -> (n, V).
        """
        sizes = lengths.tolist()
        n_of = np.full(len(sizes), self._samples) if samples is None else samples
        starts = np.cumsum(n_of) - n_of
        together = [list(range(len(sizes)))]
        if self._way != "padded":
            together = [[i for i, size in enumerate(sizes) if size == each] for each in sorted(set(sizes))]
        logits: list[Tensor] = [ids.new_zeros(0)] * len(sizes)
        cohort_of, row_of = (np.zeros(int(n_of.sum()), dtype=np.int64) for _ in range(2))
        for members in together:
            found = self._start([ids[i, : sizes[i]] for i in members], n_of[members])
            row = 0
            for logit, i in zip(found, members, strict=True):
                logits[i] = logit
                slots = slice(starts[i], starts[i] + n_of[i])
                cohort_of[slots] = self._started - 1
                row_of[slots] = np.arange(row, row + n_of[i])
                row += n_of[i]
        self._cohort_of = np.concatenate([self._cohort_of[:first], cohort_of])
        self._row_of = np.concatenate([self._row_of[:first], row_of])
        return torch.stack(logits)

    def _start(self, prompts: Sequence[Tensor], samples: Ints) -> Tensor:
        longest = max(map(len, prompts))
        ids = torch.stack([pad(prompt, (longest - len(prompt), 0)) for prompt in prompts])
        mask = None
        if any(len(prompt) < longest for prompt in prompts):
            mask = torch.stack([pad(torch.ones_like(p), (longest - len(p), 0)) for p in prompts])
        cohort = _Cohort(ids, mask, self._new_cache())
        logits = self._run(cohort, longest)
        rows = torch.from_numpy(np.repeat(np.arange(len(prompts)), samples)).to(ids.device)
        cohort.keep(rows)
        self._cohorts[self._started] = cohort
        self._started += 1
        return logits

    def __call__(self, active: ActiveRows, ids: Tensor) -> Tensor:
        """Returns the logits of the next token of each active completion, given its last: (B,) -> (B, V)."""
        n = len(active.group)
        found: Tensor | None = None
        for number in list(self._cohorts):
            slots = (self._cohort_of[:n] == number).nonzero()[0]
            if len(slots) == 0:
                del self._cohorts[number]
                continue
            logits = self._step(self._cohorts[number], slots, ids)
            if found is None:
                found = logits.new_empty(n, logits.shape[-1])
            found[torch.from_numpy(slots).to(ids.device)] = logits
        assert found is not None
        return found

    def _step(self, cohort: _Cohort, slots: Ints, ids: Tensor) -> Tensor:
        """Reads the last tokens of a cohort's completions, which are in these slots."""
        if len(slots) < KEPT_ROWS * len(cohort.ids):
            cohort.keep(torch.from_numpy(self._row_of[slots]).to(ids.device))
            self._row_of[slots] = np.arange(len(slots))
        rows = torch.from_numpy(self._row_of[slots]).to(ids.device)
        last = ids.new_zeros(len(cohort.ids))
        last[rows] = ids[torch.from_numpy(slots).to(ids.device)]
        cohort.extend(last)
        return self._run(cohort, 1)[rows]

    def _run(self, cohort: _Cohort, new: int) -> Tensor:
        """Runs the model over the `new` last tokens of a cohort, or over all; returns its last logits."""
        read = cohort.ids.shape[1] if cohort.cache is None else new
        given: dict[str, Any] = {"input_ids": cohort.ids[:, -read:], "use_cache": cohort.cache is not None}
        if cohort.cache is not None:
            given[self._cache_name] = cohort.cache
        if cohort.mask is not None:
            given["attention_mask"] = cohort.mask
        if "position_ids" in self._known:
            given["position_ids"] = _positions(cohort)[:, -read:]
        if "logits_to_keep" in self._known:
            given["logits_to_keep"] = 1
        logits: Tensor = self._model(**given).logits
        return logits[:, -1]

    def _new_cache(self) -> Any:
        if self._way == "whole sequences":
            return None
        return DynamicCache(config=self._model.config.get_text_config(decoder=True))

    def move_completions(self, sources: Tensor, targets: Tensor, _width: int) -> None:
        """Moves completions from slots, (n,), to other slots, (n,)."""
        for places in (self._cohort_of, self._row_of):
            places[targets.cpu().numpy()] = places[sources.cpu().numpy()]

    def move_prompts(self, sources: Tensor, targets: Tensor, width: int) -> None:
        """Does nothing to prompts in slots, (n,): each completion has a copy of what was kept of its own."""

    def grow(self, columns: int) -> None:
        """Does nothing: the model's own cache grows by itself."""


def _positions(cohort: _Cohort) -> Tensor:
    """Returns each token's place in its own sequence, (B, L); 0 for padding."""
    if cohort.mask is None:
        length = cohort.ids.shape[1]
        return torch.arange(length, device=cohort.ids.device).expand(len(cohort.ids), length)
    return (cohort.mask.cumsum(1) - 1).clamp(min=0)


def is_uncached(model: Any) -> bool:
    """Says whether sampling by a model reads the whole sequence for every token, which is slow."""
    return way_of(model) == "whole sequences"


@torch.no_grad()
def way_of(model: Any) -> Way:
    """Returns the fastest way whose logits are those of whole sequences. It finds out once for each model."""
    if not hasattr(model, WAY):
        setattr(model, WAY, _fastest(model))
    found: Way = getattr(model, WAY)
    return found


def _fastest(model: Any) -> Way:
    """Tries two caches beside each other first: some models keep a state in themselves, not in the cache."""
    if not _is_right(model, "equal lengths"):
        return "whole sequences"
    return "padded" if _is_right(model, "padded") else "equal lengths"


def _is_right(model: Any, way: Way) -> bool:
    n = len(LENGTHS)
    decoder = GeneralDecoder(model, n, n * SAMPLES, SAMPLES, way)
    return is_right(model, partial(decoder.prefill, 0), decoder)


def bytes_kept(model: Any) -> tuple[int, int]:
    """Returns what the model's own cache holds of a completion: always, and for each token more, in bytes."""
    sizes = []
    for length in (1, 2):
        decoder = GeneralDecoder(model, 1, 1, samples=1)
        decoder.prefill(0, attention.some_tokens(model)[:, :length], torch.tensor([length]))
        (cohort,) = decoder._cohorts.values()
        sizes.append(0 if cohort.cache is None else sum(t.nbytes for t in _tensors(cohort.cache)))
    each = max(0, sizes[1] - sizes[0])
    return max(0, sizes[0] - each), each


def _tensors(cache: DynamicCache) -> list[Tensor]:
    kept = [value for layer in cache.layers for value in vars(layer).values()]
    several = [list(value.values()) if isinstance(value, dict) else [value] for value in kept]
    return [value for values in several for value in values if isinstance(value, Tensor)]
