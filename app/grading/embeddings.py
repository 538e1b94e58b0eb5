"""Embeds texts, for the metric `cosine`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from app.grading.cache import ReplyCache, key_of
from app.grading.openai_calls import OpenAIServer, ServerRefused, usage_of
from app.table_settings import EmbeddingEntry
from graders.judges.reply import number
from graders.services import EmbeddedTexts
from graders.types import FailureKind, GradeFailed, TokenUsage

NUMBER_BYTES = 32
"""Bytes that one number of a vector takes in memory, about."""

Vector = Sequence[float]


class Embeddings:
    """The embedding model of the settings, for one tenant."""

    def __init__(
        self, entry: EmbeddingEntry, server: OpenAIServer, cache: ReplyCache[Vector], tenant: str
    ) -> None:
        self._entry = entry
        self._server = server
        self._cache = cache
        self._tenant = tenant

    def embed(self, texts: Sequence[str]) -> EmbeddedTexts:
        """Each text is asked for by itself: references come again in every step, and are known then."""
        usage = TokenUsage()
        vectors = []
        for text in texts:
            spent: list[TokenUsage] = []
            key = key_of(self._tenant, self._entry.model, text)
            ask = partial(self._ask, text, spent)
            vector, was_known = self._cache.get_or_ask(key, ask, lambda vector: len(vector) * NUMBER_BYTES)
            vectors.append(vector)
            usage = sum(spent, start=usage + TokenUsage(known=int(was_known)))
        return EmbeddedTexts(self._entry.model, vectors, usage)

    def _ask(self, text: str, spent: list[TokenUsage]) -> Vector:
        try:
            answer = self._server.ask(partial(self._call, text=text))
        except ServerRefused as refused:
            raise refused.failure(self._server.where) from None
        spent.append(usage_of(answer))
        vector = _vector(answer)
        if not vector:
            raise GradeFailed(FailureKind.MODEL_SERVER, f"{self._server.where} answered with no embedding.")
        return vector

    def _call(self, client: Any, *, text: str) -> Any:
        return client.embeddings.with_raw_response.create(
            model=self._entry.model, input=text, encoding_format="float"
        )


def _vector(answer: dict[str, Any]) -> list[float]:
    """Returns the first embedding; empty if there is none, or it holds anything but numbers."""
    data = answer.get("data")
    first = data[0] if isinstance(data, list) and data else None
    values = first.get("embedding") if isinstance(first, dict) else None
    numbers = [number(value) for value in values] if isinstance(values, list) else []
    return [value for value in numbers if value is not None] if None not in numbers else []
