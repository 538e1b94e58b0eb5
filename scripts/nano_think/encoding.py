"""Conversations to token ids, as the chat template writes them, with the loss weight of each."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

from scripts.nano.packing import Encoded
from scripts.nano_think import data
from scripts.nano_think.tokenizer import CLOSE, OPEN, TOOLS_INTRODUCTION
from scripts.nano_think.turns import Asked, Conversation, Said, Told

PROMPT_WEIGHT = 0.01
FORCED_CLOSES = ("</think>\n\n", "\n</think>\n\n")
"""What may close thoughts from outside."""

Piece = tuple[str, float]


def said(turn: Said, forced: str) -> list[Piece]:
    """What the model writes in a turn; what somebody else closes has no loss."""
    calls = "\n".join(f"<tool_call>\n{call.text}\n</tool_call>" for call in turn.calls)
    ending = turn.text + ("\n" if turn.text and calls else "") + calls + "<|im_end|>"
    if turn.thoughts is None:
        return [(f"{OPEN}\n\n{CLOSE}\n\n", 0.0), (ending, 1.0)]
    if turn.cut is None:
        return [(f"{OPEN}\n{turn.thoughts}\n{CLOSE}\n\n{ending}", 1.0)]
    begun = "\n" + turn.thoughts[: turn.cut].rstrip() if turn.cut else ""
    return [(f"{OPEN}{begun}{forced}", 0.0), (ending, 1.0)]


def pieces(conversation: Conversation, forced: str) -> Iterator[Piece]:
    """The whole conversation as texts with their weights."""
    if conversation.tools:
        shown = "\n".join([TOOLS_INTRODUCTION, *(json.dumps(tool) for tool in conversation.tools)])
        yield f"<|im_start|>system\n{shown}<|im_end|>\n", PROMPT_WEIGHT
    for turn in conversation.turns:
        if isinstance(turn, Asked):
            yield f"<|im_start|>user\n{turn.text}<|im_end|>\n", PROMPT_WEIGHT
        elif isinstance(turn, Told):
            results = "".join(f"\n<tool_response>\n{text}\n</tool_response>" for text in turn.results)
            yield f"<|im_start|>user{results}<|im_end|>\n", 0.0
        else:
            yield "<|im_start|>assistant\n", 0.0
            yield from said(turn, forced)
            yield "\n", 0.0


class Encoder:
    """Conversations to ids."""

    def __init__(self, tokenizer: Any) -> None:
        self._encode = tokenizer.backend_tokenizer.encode

    def __call__(self, conversation: Conversation, forced: str = FORCED_CLOSES[0]) -> Encoded:
        ids: list[int] = []
        weights: list[float] = []
        for text, weight in pieces(conversation, forced):
            found = self._encode(text, add_special_tokens=False).ids
            ids += found
            weights += [weight] * len(found)
        return Encoded(ids, weights)


def encoded_conversations(rng: Random, phase: data.Phase, tokenizer: Any) -> Iterator[Encoded]:
    """The stream of a phase as token ids."""
    encode = Encoder(tokenizer)
    for conversation in data.conversations(rng, phase):
        yield encode(conversation, rng.choice(FORCED_CLOSES))
