"""Texts that a checkpoint keeps with the trainer's log-probabilities, to check whoever runs its weights.

`logprobs.json` in its folder has them: token ids, of which the first is given, and the log-probability of
each other one, in nats at temperature 1. A server that answers with these weights must find the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from workers.training.base.types import ScoredText
from workers.training.sampling.decode_attention import prefill
from workers.training.sampling.decode_step import ActiveRows
from workers.training.sampling.decoders import CacheSize, MakeDecoder, make_decoder
from workers.training.sampling.general_decoder import GeneralDecoder
from workers.training.sampling.rollout import SampledModel

FILE = "logprobs.json"


def write_scored(folder: Path, texts: Sequence[ScoredText]) -> None:
    """Writes the texts into a checkpoint's folder; without any, nothing."""
    if texts:
        rows = [{"tokens": text.tokens, "logprobs": text.logprobs} for text in texts]
        (folder / FILE).write_text(json.dumps({"unit": "nats", "temperature": 1, "texts": rows}) + "\n")


def read_scored(folder: Path) -> list[ScoredText]:
    """Returns the texts of a checkpoint's folder; none of one that was written before there were any."""
    if not (folder / FILE).is_file():
        return []
    rows = json.loads((folder / FILE).read_text())["texts"]
    return [ScoredText(tuple(row["tokens"]), tuple(row["logprobs"])) for row in rows]


def largest_difference(
    model: SampledModel, texts: Sequence[ScoredText], make_decoder: MakeDecoder = make_decoder
) -> float:
    """Returns by how many nats a token's log-probability differs at most, sampled from beside trained.

    It is infinite where a number is not finite. Raises `ValueError` without texts.
    """
    pairs = zip(texts, logprobs_by_steps(model, [text.tokens for text in texts], make_decoder), strict=True)
    found = [abs(a - b) for text, now in pairs for a, b in zip(text.logprobs, now, strict=True)]
    return max(found) if all(map(math.isfinite, found)) else math.inf


@torch.inference_mode()
def logprobs_by_steps(
    model: SampledModel, texts: Sequence[tuple[int, ...]], make_decoder: MakeDecoder = make_decoder
) -> list[list[float]]:
    """Returns the log-probability of each token but the first, by the steps that completions are sampled by.

    The first tokens are run as prompts; then each token is read as if it had been drawn.
    """
    n, longest = len(texts), max(map(len, texts)) - 1
    lengths = torch.ones(n, dtype=torch.long)
    ids = torch.zeros(n, longest + 1, dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
    ids, lengths = ids.to(model.device), lengths.to(model.device)
    size = CacheSize(n, prompt_columns=1, slots=n, columns=longest, most_columns=longest)
    cache, decode = make_decoder(model.rollout_model, size, 1, n)
    read = ids[:, :1], lengths
    first = (
        cache.prefill(0, *read)
        if isinstance(cache, GeneralDecoder)
        else prefill(model.rollout_model, cache, 0, *read)
    )
    found = [first.float().log_softmax(-1).gather(1, ids[:, 1:2])[:, 0]]
    rows = np.arange(n)
    for count in range(1, longest):
        active = ActiveRows(rows, np.full(n, count), np.ones(n, dtype=np.int64))
        logits = decode(active, ids[:, count]).float()
        found.append(logits.log_softmax(-1).gather(1, ids[:, count + 1 : count + 2])[:, 0])
    by_row = torch.stack(found, 1).tolist()
    return [row[: len(text) - 1] for row, text in zip(by_row, texts, strict=True)]
