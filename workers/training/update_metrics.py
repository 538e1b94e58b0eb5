"""What one optimiser update adds up over its tokens, and the metrics that follow from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from methods import metrics as names
from methods.train_config import TrainConfig
from workers.training.losses import TokenLoss


class UpdateMetrics:
    """Adds up sums and extremes over the tokens of one update, by this process.

    They stay on the device until `read`: a GPU would stop for every number asked for in between.
    """

    def __init__(self) -> None:
        self._n_tokens = 0
        self._sums: dict[str, Tensor] = {}
        self._tops: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(
        self, loss: Tensor, value_loss: Tensor | None, tokens: TokenLoss, entropy: Tensor, gap: Tensor
    ) -> None:
        """Adds one forward pass.

        Args:
            loss: its share of the policy's loss, a scalar.
            value_loss: its share of the value loss, a scalar; None without a value head.
            tokens: (N,) each.
            entropy: (N,), nats.
            gap: (N,), distance of the trainer's logprob to the sampler's, nats.
        """
        self._n_tokens += len(gap)
        sums = {
            "loss": loss,
            "kl": tokens.kl,
            "entropy": entropy,
            "ratio": tokens.ratio,
            "clipped": tokens.is_clipped,
            "clipped_low": tokens.is_clipped & (tokens.ratio < 1),
            "truncated": tokens.is_truncated,
            "gap": gap,
        }
        if value_loss is not None:
            sums["value_loss"] = value_loss
        for name, values in sums.items():
            total = values.double().sum()
            self._sums[name] = self._sums[name] + total if name in self._sums else total
        for name, values in {"ratio": tokens.ratio, "minus_ratio": -tokens.ratio, "gap": gap}.items():
            top = values.double().max()
            self._tops[name] = torch.maximum(self._tops[name], top) if name in self._tops else top

    def read(self) -> UpdateTotals:
        """Returns the numbers, in one copy from the device."""
        values = [*self._sums.values(), *self._tops.values()]
        numbers = torch.stack(values).tolist() if values else []
        sums = dict(zip(self._sums, numbers, strict=False))
        tops = dict(zip(self._tops, numbers[len(sums) :], strict=True))
        return UpdateTotals(self._n_tokens, sums, tops)


class UpdateTotals(NamedTuple):
    """Holds the numbers of an update; no keys from a process that had no tokens."""

    n_tokens: int
    sums: dict[str, float]
    tops: dict[str, float]

    @property
    def loss(self) -> float:
        """Returns the loss of the policy and its value head together."""
        return self.sums["loss"] + self.sums.get("value_loss", 0.0)

    def metrics(self, config: TrainConfig, *, is_first: bool) -> dict[str, float]:
        """Returns the metrics of one update.

        KL, entropy and the sampler's mismatch are told of the step's first update alone: they are those of
        the policy before it.
        """
        mean = {name: total / self.n_tokens for name, total in self.sums.items()}
        values = {
            names.POLICY_LOSS: self.sums["loss"],
            names.RATIO_MEAN: mean["ratio"],
            names.RATIO_MAX: self.tops["ratio"],
            names.RATIO_MIN: -self.tops["minus_ratio"],
            names.CLIPPED_SHARE: mean["clipped"],
            names.CLIPPED_LOW_SHARE: mean["clipped_low"],
        }
        if "value_loss" in self.sums:
            values[names.VALUE_LOSS] = self.sums["value_loss"]
        if is_first:
            gap, largest_gap = (
                (names.SAMPLER_LAG, names.SAMPLER_LAG_MAX)
                if config.async_steps
                else (names.SAMPLER_MISMATCH, names.SAMPLER_MISMATCH_MAX)
            )
            values |= {
                names.KL_REFERENCE: mean["kl"],
                names.ENTROPY_MEAN: mean["entropy"],
                names.IMPORTANCE_TRUNCATED_SHARE: mean["truncated"],
                gap: mean["gap"],
                largest_gap: self.tops["gap"],
            }
        return values


def add_totals(every: Iterable[UpdateTotals]) -> UpdateTotals:
    """Returns the totals of all processes."""
    n_tokens, sums, tops = 0, dict[str, float](), dict[str, float]()
    for totals in every:
        n_tokens += totals.n_tokens
        for name, total in totals.sums.items():
            sums[name] = sums.get(name, 0.0) + total
        for name, top in totals.tops.items():
            tops[name] = max(tops.get(name, top), top)
    return UpdateTotals(n_tokens, sums, tops)
