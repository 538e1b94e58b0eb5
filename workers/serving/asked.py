"""Requests made ready for the engine: which model, which prompts, how to sample."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from app.errors import BadRequest
from workers.serving.chunks import Echo
from workers.serving.library import Texts
from workers.serving.prompts import TextPrompt, check_room, read_chat, read_text
from workers.serving.requests import ModelFiles, Options, Started
from workers.serving.token_texts import TokenTexts
from workers.serving.wire import ChatRequest, TextRequest

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
    """

    tokens: list[int]
    options: Options
    continues: bool
    echo: Callable[[Started], Echo] | None


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
        messages = request.chat()
        files, model = self._model(project_id, request.model)
        tokens = read_chat(model, messages)
        room = check_room(model, tokens, "messages")
        options = request.options(
            request.most_tokens(room),
            model.vocabulary,
            top_logprobs=alternatives,
            grammar=_grammar(model, response_format),
        )
        return Prepared(files, model, self._texts_of(model), [Asked(tokens, options, False, None)])

    def text(self, project_id: str, request: TextRequest) -> Prepared:
        """Reads texts to be completed. Raises an `ApiError`."""
        request.check()
        prompts = request.prompts()
        files, model = self._model(project_id, request.model)
        texts = self._texts_of(model)
        asked = [_asked(model, texts, request, read_text(model, prompt)) for prompt in prompts]
        return Prepared(files, model, texts, asked)

    def count(self, project_id: str, name: str, messages: list[dict[str, Any]]) -> int:
        """Returns how many tokens messages have for a model. Raises an `ApiError`."""
        return len(read_chat(self._model(project_id, name)[1], messages))

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


def _grammar(model: Texts, response_format: Mapping[str, Any] | None) -> Any:
    from workers.training.base.errors import GrammarFailed

    try:
        return model.grammar(response_format)
    except GrammarFailed as problem:
        raise BadRequest(str(problem), param="response_format", code="invalid_json_schema") from None
