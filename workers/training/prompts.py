"""Dataset rows become token ids, by the model's own chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from methods.rows import Row
from workers.training.base.types import Prompt
from workers.training.rendering.conversation import conversation
from workers.training.rendering.losses import Losses, losses
from workers.training.rendering.template import template_of
from workers.training.row_faults import RowDoubt, RowFaults


class RenderedPrompts(NamedTuple):
    """Holds a file's prompts, and what the template leaves out of them that models are used to be without."""

    prompts: list[Prompt]
    doubts: list[RowDoubt]


def make_prompts(
    rows: Sequence[Row], tokenizer: Any, context: int, name: str, vocabulary: int | None = None
) -> list[Prompt]:
    """Tokenises every row. `name` ("training", "validation") says in errors which file a line is in.

    Raises `PromptInvalid`, and `OutOfContext` for prompts that leave no room for one token; either names all
    rows that have the fault. `vocabulary` is how many tokens the model has embedding rows for, where that is
    known.
    """
    return render_prompts(rows, tokenizer, context, name, vocabulary).prompts


def render_prompts(
    rows: Sequence[Row], tokenizer: Any, context: int, name: str, vocabulary: int | None = None
) -> RenderedPrompts:
    """Tokenises every row as `make_prompts` does, and tells what is doubtful about them."""
    prompts = []
    faults = RowFaults(name, len(rows))
    for i, row in enumerate(rows):
        rendered = faults.attempt(row, partial(chat_prompt, row.item, tokenizer))
        if rendered is None:
            continue
        tokens, lost = rendered
        faults.note(row, lost)
        faults.check_ids(row, tokens, tokenizer, vocabulary)
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
    return RenderedPrompts(prompts, faults.doubts())


def chat_prompt(item: Mapping[str, Any], tokenizer: Any) -> tuple[list[int], Losses]:
    """Returns a row's messages by the chat template, with its generation prompt, and what it leaves out.

    Raises what the template raises.
    """
    talk = conversation(item)
    template = template_of(tokenizer, talk.tools)
    return template.tokens(template.render(talk, is_open=True)), losses(template, talk)


def chat_tokens(item: Mapping[str, Any], tokenizer: Any) -> list[int]:
    """Returns a whole conversation by the chat template. Raises what the template raises."""
    talk = conversation(item)
    template = template_of(tokenizer, talk.tools)
    return template.tokens(template.render(talk, is_open=False))
