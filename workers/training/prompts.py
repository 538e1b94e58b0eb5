"""Dataset rows become token ids, by the model's own chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from methods.rows import Row, text_of
from workers.training.base.errors import OutOfContext, PromptInvalid
from workers.training.base.types import Prompt


def make_prompts(rows: Sequence[Row], tokenizer: Any, context: int, name: str) -> list[Prompt]:
    """Tokenises every row. `name` ("training", "validation") says in errors which file a line is in.

    Raises `PromptInvalid`, and `OutOfContext` for a prompt that leaves no room for one token.
    """
    prompts = []
    for i, row in enumerate(rows):
        try:
            tokens = chat_tokens(row.item, tokenizer)
        except Exception as error:  # a template is a program of its own and may refuse a row in any way
            message = f"The model's chat template refused the {name} row on line {row.line}: {error}"
            raise PromptInvalid(message) from error
        if not tokens:
            raise PromptInvalid(f"The {name} row on line {row.line} is empty for the model's tokenizer.")
        if len(tokens) >= context:
            raise OutOfContext(
                f"The {name} row on line {row.line} is too long: its prompt has {len(tokens):,} tokens, and"
                f" the model holds {context:,} tokens of prompt and completion together."
            )
        prompts.append(Prompt(row=i, item=row.item, tokens=tuple(tokens)))
    return prompts


def chat_tokens(item: Mapping[str, Any], tokenizer: Any) -> list[int]:
    """Returns a row's messages by the chat template, with its generation prompt.

    Raises what the template raises.
    """
    messages = [as_template_message(message) for message in item["messages"]]
    tokens: list[int] = tokenizer.apply_chat_template(
        messages, tools=item.get("tools"), add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return tokens


def as_template_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a message as open models' templates know it: `system`, not `developer`, and text alone."""
    role = "system" if message["role"] == "developer" else message["role"]
    return {**message, "role": role, "content": text_of(message.get("content"))}
