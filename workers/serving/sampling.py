"""From chat requests to completions: the sampler of the engine, once for all of a batch."""

from __future__ import annotations

from collections.abc import Sequence

from app.errors import ApiError, BadRequest
from workers.serving.chat import Chat, SampledCompletions
from workers.serving.library import LoadedModel
from workers.training.base.errors import GrammarFailed
from workers.training.base.types import Completion, Group, Prompt
from workers.training.model.grammar import Grammar
from workers.training.prompts import chat_prompt
from workers.training.sampling.rollout import Sampling, sample_groups


def sample_chats(model: LoadedModel, chats: Sequence[Chat]) -> None:
    """Samples for requests with the same options. A request that cannot be read fails alone."""
    prompts = []
    readable = []
    for chat in chats:
        try:
            prompts.append(_prompt(model, chat))
            readable.append(chat)
        except ApiError as fault:
            chat.result.set_exception(fault)
    if not readable:
        return
    options = readable[0].options
    sampling = Sampling(
        samples=options.samples,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        key=("chat",),
        top_p=options.top_p,
        stop=options.stop,
        grammar=_grammar(model, readable[0]),
    )
    groups = sample_groups(model.base, prompts, sampling)
    for chat, group in zip(readable, groups, strict=True):
        chat.result.set_result(_sampled(model, group))


def _prompt(model: LoadedModel, chat: Chat) -> Prompt:
    """Tokenises a request. Its seed stands where a row's number would: what runs beside it moves no draw."""
    item = {"messages": chat.messages}
    try:
        tokens, lost = chat_prompt(item, model.base.tokenizer)
    except Exception as error:  # a template is a program of its own and may refuse messages in any way
        raise BadRequest(
            f"The model's chat template refused the messages: {error}", param="messages"
        ) from None
    if lost.grave:
        raise BadRequest(f"The model's chat template leaves out {lost.grave[0]}.", param="messages")
    if max(tokens, default=0) >= model.base.vocabulary:
        name = model.base.tokenizer.convert_ids_to_tokens(max(tokens))
        raise BadRequest(f"The model has no embedding row for the token {name!r}.", param="messages")
    context = model.base.context
    if not 0 < len(tokens) < context:
        message = (
            f"This model's maximum context length is {context} tokens, and the messages have {len(tokens)}: "
            "there is no room for a reply."
        )
        raise BadRequest(message, param="messages", code="context_length_exceeded")
    return Prompt(chat.seed, item, tuple(tokens))


def _grammar(model: LoadedModel, chat: Chat) -> Grammar | None:
    try:
        return model.grammar(chat.options.response_format)
    except GrammarFailed as problem:
        raise BadRequest(str(problem), param="response_format", code="invalid_json_schema") from None


def _sampled(model: LoadedModel, group: Group) -> SampledCompletions:
    return SampledCompletions(
        len(group.prompt.tokens),
        group.completions,
        [_pieces(model, completion) for completion in group.completions],
    )


def _pieces(model: LoadedModel, completion: Completion) -> list[str]:
    pieces: list[str] = model.base.tokenizer.batch_decode([[token] for token in completion.tokens])
    return pieces
