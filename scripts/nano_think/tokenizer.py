"""The tokenizer of cherry-nano-think: cherry-nano's kind, with tags for thoughts and calls."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from tokenizers import AddedToken

from scripts.nano.tokenizer import learnt_tokenizer
from scripts.nano_think import data
from scripts.nano_think.turns import Asked, Conversation, Told

VOCABULARY_SIZE = 1024
"""With the tags; the names in the data are few, and a small output layer is quick."""
POSITIONS = 2048
OPEN, CLOSE = "<think>", "</think>"
TAGS = (OPEN, CLOSE, "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
HERE = Path(__file__).parent
TOOLS_INTRODUCTION = "You may call these functions:"

RESPONSE_TEMPLATE: dict[str, Any] = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "reasoning_content": {"open": OPEN, "close_pattern": r"</think>\s*", "content": "text"},
        "tool_calls": {
            "open": "<tool_call>",
            "close_pattern": r"</tool_call>\s*",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"<\|im_end\|>\s*", "content": "text"},
    },
}
"""How `tokenizer.parse_response` takes a turn apart: as that of Qwen3, whose format this is."""


def _pieces(conversation: Conversation) -> Iterator[str]:
    yield from (json.dumps(tool) for tool in conversation.tools)
    for turn in conversation.turns:
        if isinstance(turn, Asked):
            yield turn.text
        elif isinstance(turn, Told):
            yield from turn.results
        else:
            yield from (turn.thoughts or "", turn.text, *(call.text for call in turn.calls))


def _texts(rng: Random, count: int) -> Iterator[str]:
    for conversation in islice(data.conversations(rng, data.PHASES[1]), count):
        yield from _pieces(conversation)
    yield from ["system", "user", "assistant", "developer", "tool", TOOLS_INTRODUCTION] * 20


def train_tokenizer(seed: int, conversations: int = 30_000) -> Any:
    """Learn the merges from the training stream; then come the tags, which stay in decoded text."""
    size = VOCABULARY_SIZE - len(TAGS)
    tokenizer: Any = learnt_tokenizer(_texts(Random(seed), conversations), size, model_max_length=POSITIONS)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    tokenizer.chat_template = (HERE / "chat_template.jinja").read_text().removesuffix("\n")
    tokenizer.response_template = RESPONSE_TEMPLATE
    return tokenizer
