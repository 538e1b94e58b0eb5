"""From chat requests to completions: the sampler of the engine, once for all of a batch."""

from __future__ import annotations

from collections.abc import Sequence

from app.errors import ApiError, BadRequest
from workers.serving.chat import Answered, Chat
from workers.serving.library import Loaded
from workers.training.base.errors import ConstraintFailed
from workers.training.base.types import Completion, Group, Prompt
from workers.training.model.grammar import Constraint
from workers.training.prompts import chat_tokens
from workers.training.sampling.rollout import Sampling, sample_groups


def answer(model: Loaded, chats: Sequence[Chat]) -> None:
    """Answer requests of one shape. A request that cannot be read fails alone."""
    prompts = []
    readable = []
    for chat in chats:
        try:
            prompts.append(_prompt(model, chat))
            readable.append(chat)
        except ApiError as fault:
            chat.answer.set_exception(fault)
    if not readable:
        return
    shape = readable[0].shape
    sampling = Sampling(
        samples=shape.samples,
        max_tokens=shape.max_tokens,
        temperature=shape.temperature,
        key=("chat",),
        top_p=shape.top_p,
        stop=shape.stop,
        constraint=_constraint(model, readable[0]),
    )
    groups = sample_groups(model.base, prompts, sampling)
    for chat, group in zip(readable, groups, strict=True):
        chat.answer.set_result(_answered(model, group))


def _prompt(model: Loaded, chat: Chat) -> Prompt:
    """The request as tokens. Its seed stands in the row's place, so that it draws the same in any company."""
    item = {"messages": chat.messages}
    try:
        tokens = chat_tokens(item, model.base.tokenizer)
    except Exception as error:  # a template is a program of its own and may refuse messages in any way
        raise BadRequest(
            f"The model's chat template refused the messages: {error}", param="messages"
        ) from None
    context = model.base.context
    if not 0 < len(tokens) < context:
        message = (
            f"This model's maximum context length is {context} tokens, and the messages have {len(tokens)}: "
            "there is no room for a reply."
        )
        raise BadRequest(message, param="messages", code="context_length_exceeded")
    return Prompt(chat.seed, item, tuple(tokens))


def _constraint(model: Loaded, chat: Chat) -> Constraint | None:
    try:
        return model.constraint(chat.shape.response_format)
    except ConstraintFailed as problem:
        raise BadRequest(str(problem), param="response_format", code="invalid_json_schema") from None


def _answered(model: Loaded, group: Group) -> Answered:
    return Answered(
        len(group.prompt.tokens),
        group.completions,
        [_pieces(model, completion) for completion in group.completions],
    )


def _pieces(model: Loaded, completion: Completion) -> list[str]:
    pieces: list[str] = model.base.tokenizer.batch_decode([[token] for token in completion.tokens])
    return pieces
