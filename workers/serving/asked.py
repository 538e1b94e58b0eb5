"""Requests made ready for the engine: which model, which prompts, how to sample."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from app.errors import BadRequest
from workers.serving.chunks import Echo
from workers.serving.library import Texts
from workers.serving.parts.calling import Held, held_answer
from workers.serving.parts.live_calls import LiveCalls
from workers.serving.prompts import TextPrompt, check_room, read_chat, read_text
from workers.serving.requests import ModelFiles, Options, Started
from workers.serving.token_texts import TokenTexts
from workers.serving.wire import ChatRequest, ChatTemplateOptions, CountRequest, TextRequest

if TYPE_CHECKING:
    from workers.serving.parts.model_parts import ModelParts
    from workers.serving.parts.wish import Rendering

KNOWN_SECONDS = 10.0
"""How long a project's model is taken to lie where it was found. Whoever asks has looked whether it still is
there; this only saves a question to the database. Chosen, not measured.
"""
MOST_KNOWN = 64
"""Models of projects that are remembered, with their tokenizers. Chosen, not measured."""


class Asked(NamedTuple):
    """Is one prompt, ready to be sampled for.

    Attributes:
        continues: the completions' texts go on where the prompt's ends; else they stand by themselves.
        echo: what is told before each completion, if that is asked for.
        parts: how completions are taken apart; None where all of them is answer.
    """

    tokens: list[int]
    options: Options
    continues: bool
    echo: Callable[[Started], Echo] | None
    parts: AskedParts | None = None


class AskedParts(NamedTuple):
    """Says into which parts completions are to be taken apart: thoughts, and calls of these tools."""

    parts: ModelParts
    tools: Sequence[Mapping[str, Any]]
    are_calls_held: bool
    """A grammar holds the calls, so that they can be told as they are written."""

    @property
    def call_tag(self) -> str:
        """Returns what begins a call; "" where there are no calls, or their family has no tag."""
        return self.parts.call_tag if self.tools else ""

    def live(self) -> LiveCalls | None:
        """Returns what reads the calls of a completion as they are written; None where they may be broken."""
        syntax = self.parts.syntax
        if not (self.tools and self.are_calls_held and syntax) or syntax.between_parts is None:
            return None
        return LiveCalls(syntax)


class Prepared(NamedTuple):
    """Is a whole request, ready to be sampled for."""

    files: ModelFiles
    model: Texts
    texts: TokenTexts
    prompts: list[Asked]


class Models(Protocol):
    """Finds models, and reads what their requests need."""

    def find(self, project_id: str, name: str) -> ModelFiles:
        """Returns where a project's model lies. Raises `NotFound`."""

    def texts(self, files: ModelFiles) -> Texts:
        """Returns what is known of a model without its weights. Raises an `ApiError` if it cannot be read."""


class Preparation:
    """Makes requests ready. Its methods read files, rows and texts: they belong on threads of their own."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._texts: WeakKeyDictionary[Texts, TokenTexts] = WeakKeyDictionary()
        self._making = threading.Lock()
        self._known: dict[tuple[str, str], tuple[float, tuple[ModelFiles, Texts]]] = {}

    def chat(self, project_id: str, request: ChatRequest) -> Prepared:
        """Reads a chat. Raises an `ApiError`."""
        alternatives, response_format = request.alternatives, request.checked_format()
        messages, tools = request.chat(), request.shown_tools()
        files, model = self._model(project_id, request.model)
        rendering = _rendering(model, request)
        tokens = read_chat(model, rendering.tokenizer, messages, tools)
        room = check_room(model, tokens, "messages")
        most = request.most_tokens(room)
        held = held_answer(request, response_format, model.parts, model.tokenizer)
        asked = _parts(model, tools, are_calls_held=held.text is not None)
        options = request.options(
            most,
            model.vocabulary,
            top_logprobs=alternatives,
            grammar=_grammar(model, held),
            held_by=held.param,
            reader=None if asked is None else asked.parts.reader,
            call_tag=asked.call_tag if asked is not None else "",
            max_thinking_tokens=rendering.budget(most),
        )
        return Prepared(files, model, self._texts_of(model), [Asked(tokens, options, False, None, asked)])

    def text(self, project_id: str, request: TextRequest) -> Prepared:
        """Reads texts to be completed. Raises an `ApiError`."""
        request.check()
        prompts = request.prompts()
        files, model = self._model(project_id, request.model)
        texts = self._texts_of(model)
        asked = [_asked(model, texts, request, read_text(model, prompt)) for prompt in prompts]
        return Prepared(files, model, texts, asked)

    def count(self, project_id: str, request: CountRequest) -> int:
        """Returns how many tokens messages have for a model. Raises an `ApiError`."""
        messages, model = request.chat(), self._model(project_id, request.model)[1]
        tokenizer = _rendering(model, request).tokenizer
        return len(read_chat(model, tokenizer, messages, request.shown_tools()))

    def is_quick(self, project_id: str, name: str) -> bool:
        """Says whether a model was found a moment ago, so that short texts for it are read in no time."""
        return self._remembered((project_id, name)) is not None

    def _model(self, project_id: str, name: str) -> tuple[ModelFiles, Texts]:
        key = (project_id, name)
        if (found := self._remembered(key)) is not None:
            return found
        files = self._models.find(project_id, name)
        found = files, self._models.texts(files)
        self._texts_of(found[1])
        _ = found[1].parts  # it takes a moment
        with self._making:
            self._known[key] = (time.monotonic(), found)
            while len(self._known) > MOST_KNOWN:
                del self._known[next(iter(self._known))]
        return found

    def _remembered(self, key: tuple[str, str]) -> tuple[ModelFiles, Texts] | None:
        when, found = self._known.get(key, (0.0, None))
        return found if time.monotonic() - when < KNOWN_SECONDS else None

    def _texts_of(self, model: Texts) -> TokenTexts:
        with self._making:
            if model not in self._texts:
                self._texts[model] = TokenTexts(model.tokenizer)
            return self._texts[model]


def _asked(model: Texts, texts: TokenTexts, request: TextRequest, prompt: TextPrompt) -> Asked:
    room = check_room(model, prompt.tokens, "prompt", least=0 if request.max_tokens == 0 else 1)
    told = request.logprobs if request.echo else None
    options = request.options(
        request.most_tokens(room),
        model.vocabulary,
        top_logprobs=request.logprobs or 0,
        prompt_logprobs=told,
    )
    return Asked(prompt.tokens, options, True, _echo(texts, prompt) if request.echo else None)


def _echo(texts: TokenTexts, prompt: TextPrompt) -> Callable[[Started], Echo]:
    def echo(started: Started) -> Echo:
        shares = [b""] * prompt.added + texts.shares(prompt.tokens[prompt.added :])
        text = b"".join(shares).decode() if prompt.text is None else prompt.text
        return Echo(text, started.prompt or (), shares if started.prompt else ())

    return echo


def _grammar(model: Texts, held: Held) -> Any:
    from workers.training.base.errors import GrammarFailed

    try:
        return model.grammar(held.text)
    except GrammarFailed as problem:
        raise BadRequest(str(problem), param=held.param, code="invalid_json_schema") from None


def _rendering(model: Texts, request: ChatTemplateOptions) -> Rendering:
    from workers.serving.parts.wish import rendering_of

    return rendering_of(model.tokenizer, request)


def _parts(model: Texts, tools: Sequence[Mapping[str, Any]], *, are_calls_held: bool) -> AskedParts | None:
    """Returns how the completions of a chat are taken apart."""
    parts = model.parts
    if parts is None or (parts.reader.marks is None and not tools):
        return None
    return AskedParts(parts, tools, are_calls_held)
