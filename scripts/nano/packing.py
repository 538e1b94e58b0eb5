"""Conversations to rows of a fixed length, several conversations to a row, each seeing only itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import torch

from scripts.nano import data
from scripts.nano.tokenizer import END, START

ROW_TOKENS = 256


@dataclass(frozen=True)
class Encoded:
    """Token ids with the loss weight of each."""

    ids: list[int]
    weights: list[float]


@dataclass(frozen=True)
class Batch:
    """Packed rows. `document` numbers the conversations within a row; 0 is padding."""

    ids: torch.Tensor
    weights: torch.Tensor
    positions: torch.Tensor
    document: torch.Tensor

    @property
    def attention_mask(self) -> torch.Tensor:
        """True where a token may look: earlier tokens of its own conversation."""
        same = self.document[:, None, :, None] == self.document[:, None, None, :]
        length = self.ids.shape[1]
        return same & torch.ones(length, length, dtype=torch.bool).tril()


class Encoder:
    """Chat messages to ids, as the chat template would, keeping track of what the assistant said."""

    def __init__(self, tokenizer: Any, prompt_weight: float) -> None:
        self._tokenizer = tokenizer
        self._prompt_weight = prompt_weight
        self._start = tokenizer.convert_tokens_to_ids(START)
        self._end = tokenizer.convert_tokens_to_ids(END)
        self._newline = self._ids("\n")
        roles = ("system", "user", "assistant")
        self._roles = {role: [self._start, *self._ids(f"{role}\n")] for role in roles}

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def __call__(self, messages: list[dict[str, str]]) -> Encoded:
        ids: list[int] = []
        weights: list[float] = []
        for message in messages:
            head = self._roles[message["role"]]
            body = [*self._ids(message["content"]), self._end]
            body_weight = 1.0 if message["role"] == "assistant" else self._prompt_weight
            ids += head + body + self._newline
            weights += [0.0] * len(head) + [body_weight] * len(body) + [0.0] * len(self._newline)
        return Encoded(ids, weights)


def encoded_conversations(rng: Random, phase: data.Phase, encode: Encoder) -> Iterator[Encoded]:
    """The stream of a phase as token ids."""
    for turns in data.conversations(rng, phase):
        yield encode(data.messages(rng, turns))


def packed_rows(stream: Iterator[Encoded], row_tokens: int = ROW_TOKENS) -> Iterator[list[Encoded]]:
    """Rows of conversations, filled best-fit from a small pool."""
    pool: list[Encoded] = []
    while True:
        while len(pool) < 48:
            encoded = next(stream)
            if len(encoded.ids) <= row_tokens:
                pool.append(encoded)
        row = [pool.pop(0)]
        while True:
            room = row_tokens - sum(len(e.ids) for e in row)
            fitting = [e for e in pool if len(e.ids) <= room]
            if not fitting:
                break
            longest = max(fitting, key=lambda e: len(e.ids))
            pool.remove(longest)
            row.append(longest)
        yield row


def make_batch(rows: list[list[Encoded]], pad_id: int, row_tokens: int = ROW_TOKENS) -> Batch:
    """Stack rows into tensors."""
    shape = (len(rows), row_tokens)
    ids = torch.full(shape, pad_id)
    weights = torch.zeros(shape)
    positions, document = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    for r, row in enumerate(rows):
        start = 0
        for number, encoded in enumerate(row, 1):
            end = start + len(encoded.ids)
            ids[r, start:end] = torch.tensor(encoded.ids)
            weights[r, start:end] = torch.tensor(encoded.weights)
            positions[r, start:end] = torch.arange(len(encoded.ids))
            document[r, start:end] = number
            start = end
    return Batch(ids, weights, positions, document)
