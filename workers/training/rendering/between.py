"""What a chat template writes between two turns of the assistant, so that earlier tokens stay as sampled.

A conversation is rendered with a mark in the assistant's turn; what stands behind the end of that turn, up to
the end of the generation prompt, is all that is new. Nothing that was sampled is rendered again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workers.training.rendering.conversation import Conversation, conversation
from workers.training.rendering.ends import ends_of
from workers.training.rendering.template import ANSWER, KEY, VALUE, Template, template_of


class TurnsUnsupported(Exception):
    """Says why a model's chat template cannot go on after a turn."""


def tokens_between(
    tokenizer: Any,
    item: Mapping[str, Any],
    called: Sequence[str],
    replies: Sequence[Mapping[str, Any]],
    end_id: int | None,
) -> list[int]:
    """Returns the ids between an assistant's turn and its next one.

    Args:
        item: the row, whose messages begin the conversation.
        called: names of the functions that the turn has called; none for an answer.
        replies: what comes back, in the chat form: a result for each call, in their order, and others.
        end_id: the token that ended the turn; None where none did, so that the template's own is written.

    Raises `TurnsUnsupported`.
    """
    talk = conversation(item)
    template = template_of(tokenizer, talk.tools)
    text = _behind_the_turn(template, talk, called, replies)
    return template.tokens(_without_end(template, text, called, replies, end_id))


def _behind_the_turn(
    template: Template, talk: Conversation, called: Sequence[str], replies: Sequence[Mapping[str, Any]]
) -> str:
    """Returns what is written from the mark in the assistant's turn on."""
    mark = VALUE if called else ANSWER
    for names in (called, called[-1:]):  # some templates refuse several calls in one turn
        turn = _turn(names)
        said = conversation({}, [turn, *_with_ids(replies)]).messages
        try:
            closed = template.render(talk.with_messages(said[:1]), is_open=False)
            whole = template.render(talk.with_messages(said), is_open=True)
        except MemoryError:
            raise
        except Exception as problem:  # a template is a program of its own
            reason: Exception | None = problem
            continue
        reason = None
        if (n := closed.count(mark)) and whole.count(mark) >= n:
            return whole.split(mark, n)[n]
    told = f": {reason}" if reason else ", as it does not write such a turn"
    raise TurnsUnsupported(f"The model's chat template cannot go on after a turn of {_what(called)}{told}.")


def _without_end(
    template: Template,
    text: str,
    called: Sequence[str],
    replies: Sequence[Mapping[str, Any]],
    end_id: int | None,
) -> str:
    """Cuts off what ends the turn, as far as the policy has written that."""
    ends = ends_of(template)
    own = ends.after_calls if called else ends.after_answer
    first = str(replies[0]["content"])
    reach = text.find(first) if first else len(text)
    for token, keeps_it in ((end_id, False), (own, end_id is None)):
        if token is None:
            continue
        mark = template.tokenizer.decode([token], skip_special_tokens=False)
        if mark and (at := text.find(mark)) >= 0 and at < (reach if reach >= 0 else len(text)):
            return text[at:] if keeps_it else text[at + len(mark) :]
    raise TurnsUnsupported(
        f"The model's chat template does not say where a turn of {_what(called)} ends, so nothing can follow."
    )


def _turn(called: Sequence[str]) -> dict[str, Any]:
    if not called:
        return {"role": "assistant", "content": ANSWER}
    calls = [
        {"id": _id(number), "type": "function", "function": {"name": name, "arguments": {KEY: VALUE}}}
        for number, name in enumerate(called)
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def _with_ids(replies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the replies with ids that every template takes, and that are the same each time."""
    results = iter(range(len(replies)))
    return [
        {**reply, "tool_call_id": _id(next(results))} if reply["role"] == "tool" else dict(reply)
        for reply in replies
    ]


def _id(number: int) -> str:
    """Some templates take ids of nine letters and digits only."""
    return f"cherry{number:03}"


def _what(called: Sequence[str]) -> str:
    return "tool calls" if called else "an answer"
