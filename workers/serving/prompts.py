"""From messages and texts to the ids of prompts: what a model cannot read is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from app.errors import BadRequest
from workers.serving.library import Texts
from workers.serving.wire import Prompt

THE_TOOLS = "the tools"
UNSHOWN = "The model's chat template shows no tools, so it cannot be given any."


class TextPrompt(NamedTuple):
    """Is the prompt of a text's completion.

    Attributes:
        text: as it was given, None where ids were.
        added: how many of the first ids are no part of the text, such as one that begins every text.
    """

    tokens: list[int]
    text: str | None
    added: int


def read_chat(
    model: Texts, tokenizer: Any, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]
) -> list[int]:
    """Returns messages as the model reads them by this tokenizer of its own. Raises `BadRequest`."""
    from workers.training.prompts import chat_prompt

    try:
        tokens, lost = chat_prompt({"messages": messages, "tools": list(tools)}, tokenizer)
    except Exception as error:  # a template is a program of its own and may refuse messages in any way
        raise _unreadable(f"The model's chat template refused the messages: {error}", "messages") from None
    if THE_TOOLS in lost.grave:
        raise BadRequest(UNSHOWN, param="tools", code="unsupported_parameter")
    if lost.grave:
        raise _unreadable(f"The model's chat template leaves out {lost.grave[0]}.", "messages")
    _check_ids(model, tokens, "messages")
    return tokens


def read_text(model: Texts, prompt: Prompt) -> TextPrompt:
    """Returns a text as the model reads it; of none, the token that begins or ends its texts.

    Raises `BadRequest`.
    """
    if isinstance(prompt, str):
        read = _read(model.tokenizer, prompt) if prompt else TextPrompt([], "", 0)
    else:
        read = TextPrompt(list(prompt), None, 0)
    if not read.tokens:
        read = TextPrompt([_empty(model)], "", 1)
    _check_ids(model, read.tokens, "prompt")
    return read


def _read(tokenizer: Any, text: str) -> TextPrompt:
    """Returns a text's ids with what is put before it, without what would end a text, as it is to go on."""
    whole: list[int] = tokenizer(text)["input_ids"]
    bare: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    for start in range(len(whole) - len(bare), -1, -1):
        if whole[start : start + len(bare)] == bare:
            return TextPrompt(whole[: start + len(bare)], text, start)
    return TextPrompt(bare, text, 0)


def check_room(model: Texts, tokens: Sequence[int], param: str, *, least: int = 1) -> int:
    """Returns how many tokens fit behind a prompt. Raises `BadRequest` if those are fewer than `least`."""
    context = model.context
    room = context - len(tokens)
    if room >= least:
        return room
    what = "messages have" if param == "messages" else "prompt has"
    message = (
        f"This model's maximum context length is {context} tokens, and the {what} {len(tokens)}: "
        "there is no room for a reply."
    )
    raise BadRequest(message, param=param, code="context_length_exceeded")


def _empty(model: Texts) -> int:
    tokenizer = model.tokenizer
    begin = tokenizer.bos_token_id
    return int(begin if begin is not None else model.end_ids[0])


def _check_ids(model: Texts, tokens: Sequence[int], param: str) -> None:
    largest = max(tokens, default=0)
    if largest >= model.vocabulary:
        from workers.serving.token_bytes import name_of

        name = name_of(model.tokenizer, largest) or largest
        raise _unreadable(f"The model has no embedding row for the token {name!r}.", param)
    if not tokens:
        raise _unreadable("The model's chat template makes nothing of the messages.", param)


def _unreadable(message: str, param: str) -> BadRequest:
    return BadRequest(message, param=param, code="invalid_value")
