"""What is asked of the engine, and what it tells of each request while it samples, without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from app.errors import ApiError

if TYPE_CHECKING:
    from workers.training.model.grammar import Grammar
    from workers.training.rendering.parts import PartsReader

Alternatives = tuple[tuple[int, float], ...]
"""Tokens and their log-probabilities, the most likely first."""


class ModelFiles(NamedTuple):
    """Says where a model's files are: a folder of this machine, or a prefix in storage.

    Attributes:
        adapter_of: the base model whose LoRA adapter lies beside a tuned one; None for a model of its own.
        base_weights: what that base's files of weights were then, by name, with the sha256 of each.
    """

    name: str
    folder: str | None
    storage_key: str | None
    adapter_of: ModelFiles | None = None
    base_weights: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Options:
    """Says how to sample the completions of one request.

    Attributes:
        max_tokens: a completion is cut here, or where the context ends; 0 reads the prompt alone.
        temperature: 0 is greedy; logprobs are then those at temperature 1.
        top_p: draw among the most likely tokens that together reach this probability.
        top_logprobs: how many of the most likely tokens are told beside each that was sampled.
        logit_bias: what is added to a token's logit.
        frequency_penalty: what a token's logit loses for each time that the completion has it.
        presence_penalty: what it loses once it has.
        stop: texts that end a completion.
        grammar: which tokens may come next, behind any thoughts. Logprobs are those among the allowed tokens.
        held_by: the parameter that asked for the grammar.
        reader: what takes completions apart, so that stop strings end an answer only; None where all of a
            completion is one.
        call_tag: what begins a tool call, in which stop strings do not count either.
        max_thinking_tokens: the thoughts are closed behind so many tokens.
        prompt_logprobs: tell the prompt's own logprobs, with so many alternatives each; None tells none.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_logprobs: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    grammar: Grammar | None = None
    held_by: str = "response_format"
    reader: PartsReader | None = None
    call_tag: str = ""
    max_thinking_tokens: int | None = None
    prompt_logprobs: int | None = None


class PromptToken(NamedTuple):
    """Is one token of a prompt; the first has no log-probability, as nothing comes before it."""

    token: int
    logprob: float | None
    top: Alternatives


class Started(NamedTuple):
    """Says that a prompt was read; it comes once, before the first token.

    A request for no tokens is over with it.

    Attributes:
        prompt_tokens: how many the prompt has.
        cached_tokens: how many of them were known from earlier requests.
        prompt: the prompt's tokens, where their logprobs were asked for.
    """

    prompt_tokens: int
    cached_tokens: int
    prompt: Sequence[PromptToken] | None


class Token(NamedTuple):
    """Is one sampled token. The last of a sample says why it is.

    A token that completed a stop string, and an end token, are told like any other.
    """

    sample: int
    token: int
    logprob: float
    top: Alternatives
    finish: Literal["stop", "length"] | None


class Failed(NamedTuple):
    """Says that a request has ended without the rest of its tokens."""

    error: ApiError


Event = Sequence[Token] | Started | Failed


@dataclass(frozen=True, eq=False)
class Request:
    """Asks for completions of a prompt.

    Attributes:
        prompt: token ids, at least one.
        samples: completions of it.
        seed: decides the draws, whatever is sampled beside it.
        key: whom to be fair to.
        on_event: is told what happens, on the engine's thread: tokens at most once a step. It must return at
            once and raise nothing.
    """

    model: ModelFiles
    prompt: Sequence[int]
    samples: int
    options: Options
    seed: int
    key: str
    on_event: Callable[[Event], None]
