"""A conversation with one model over the API: asked question by question, answered piece by piece."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from openai import OpenAI

LAYOUT = "\n\t"
"""Characters below the space that a terminal may be sent; others move its cursor, or worse."""


class Answer(NamedTuple):
    """What a model has answered. `finish_reason` is None for an answer that was broken off."""

    model: str
    question: str
    content: str
    finish_reason: str | None
    usage: dict[str, Any] | None


class Talk:
    """Holds what was said so far. `answer` is the last one, whole or broken off."""

    def __init__(self, client: OpenAI, model: str, system: str | None, options: Mapping[str, Any]) -> None:
        self.model = model
        self.answer: Answer | None = None
        self._client = client
        self._options = options
        self._start: list[dict[str, str]] = [] if system is None else [_message("system", system)]
        self._messages = list(self._start)

    def reset(self) -> None:
        """Forgets all but the system message."""
        self._messages = list(self._start)

    def ask(self, question: str) -> Generator[str, None, None]:
        """Yields the pieces of the answer as they come. Raises the client's errors.

        What was said of an answer that breaks off stays in the conversation; where nothing was, the question
        does not stay either.
        """
        asked = [*self._messages, _message("user", question)]
        pieces: list[str] = []
        finish, usage, self.answer = None, None, None
        try:
            completions: Any = self._client.chat.completions
            stream = completions.create(
                model=self.model,
                messages=asked,
                stream=True,
                stream_options={"include_usage": True},
                **self._options,
            )
            with stream:
                for chunk in stream:
                    usage = chunk.usage.to_dict() if chunk.usage else usage
                    for choice in chunk.choices:
                        finish = choice.finish_reason or finish
                        if choice.delta.content:
                            pieces.append(choice.delta.content)
                            yield choice.delta.content
        finally:
            content = "".join(pieces)
            self.answer = Answer(self.model, question, content, finish, usage)
            if pieces or finish:
                self._messages = [*asked, _message("assistant", content)]


def safe_in_terminal(text: str) -> str:
    """Returns a text without the control characters by which it could take hold of a terminal."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_control(each) else each for each in text)


def _is_control(character: str) -> bool:
    return (character < " " and character not in LAYOUT) or "\x7f" <= character <= "\x9f"


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
