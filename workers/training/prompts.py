"""Dataset rows become token ids, by the model's own chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from methods.rows import Row, text_of
from workers.training.base.types import Prompt
from workers.training.row_faults import RowFaults

CONVERSATIONS_TRIED = 20
"""Conversations with tools that are rendered twice. A template that hides the tools of these hides
all. Chosen, not measured."""


def make_prompts(rows: Sequence[Row], tokenizer: Any, context: int, name: str) -> list[Prompt]:
    """Tokenises every row. `name` ("training", "validation") says in errors which file a line is in.

    Raises `PromptInvalid`, and `OutOfContext` for prompts that leave no room for one token; either names all
    rows that have the fault.
    """
    prompts = []
    faults = RowFaults(name, len(rows))
    for i, row in enumerate(rows):
        try:
            tokens = chat_tokens(row.item, tokenizer)
        except MemoryError:
            raise
        except Exception as error:  # a template is a program of its own and may refuse a row in any way
            faults.refused(row, error)
            continue
        if not tokens:
            faults.empty(row, "an empty prompt")
        elif len(tokens) >= context:
            faults.too_long(row, len(tokens))
        prompts.append(Prompt(row=i, item=row.item, tokens=tuple(tokens), place=row.place))
    faults.check(
        lambda whose, n: (
            f"{whose} prompt has {n:,} tokens, and the model holds {context:,} tokens of prompt and"
            " completion together"
        )
    )
    return prompts


def hides_tools(
    conversations: Sequence[tuple[Sequence[Mapping[str, Any]], Sequence[Any]]], tokenizer: Any
) -> bool:
    """Whether the chat template shows the model nothing of the tools that rows offer it.

    `conversations` are (messages, tools), the messages as templates know them. The first
    `CONVERSATIONS_TRIED` are rendered with and without their tools.
    """
    tried = conversations[:CONVERSATIONS_TRIED]
    return bool(tried) and all(
        _tokens(messages, tools, tokenizer) == _tokens(messages, None, tokenizer) for messages, tools in tried
    )


def chat_tokens(item: Mapping[str, Any], tokenizer: Any) -> list[int]:
    """Returns a row's messages by the chat template, with its generation prompt.

    Raises what the template raises.
    """
    messages = [as_template_message(message) for message in item["messages"]]
    return _tokens(messages, item.get("tools"), tokenizer)


def _tokens(messages: Sequence[Mapping[str, Any]], tools: Any, tokenizer: Any) -> list[int]:
    tokens: list[int] = tokenizer.apply_chat_template(
        messages, tools=tools, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return tokens


def as_template_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a message as open models' templates know it: `system`, not `developer`, and text alone."""
    role = "system" if message["role"] == "developer" else message["role"]
    return {**message, "role": role, "content": text_of(message.get("content"))}
