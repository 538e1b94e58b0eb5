"""A conversation with one model over the API: asked question by question, answered piece by piece."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from openai import OpenAI

LAYOUT = "\n\t"
"""Characters below the space that a terminal may be sent; others move its cursor, or worse."""


class Piece(NamedTuple):
    """The next piece of what a model says: of its answer, or of the thoughts before it."""

    text: str
    is_thought: bool = False


class Answer(NamedTuple):
    """What a model has answered. `finish_reason` is None for an answer that was broken off."""

    model: str
    question: str
    content: str
    finish_reason: str | None
    usage: dict[str, Any] | None
    reasoning_content: str = ""
    tool_calls: tuple[dict[str, Any], ...] = ()

    def told(self) -> dict[str, Any]:
        """Returns it as JSON, without thoughts and calls where there are none."""
        optional = ("reasoning_content", "tool_calls")
        return {name: value for name, value in self._asdict().items() if value or name not in optional}


class Talk:
    """Holds what was said so far. `answer` is the last one, whole or broken off."""

    def __init__(self, client: OpenAI, model: str, system: str | None, options: Mapping[str, Any]) -> None:
        self.model = model
        self.answer: Answer | None = None
        self._client = client
        self._options = options
        self._start: list[dict[str, Any]] = [] if system is None else [_message("system", system)]
        self._messages = list(self._start)

    def reset(self) -> None:
        """Forgets all but the system message."""
        self._messages = list(self._start)

    def ask(self, question: str) -> Generator[Piece, None, None]:
        """Yields the pieces of the answer as they come. Raises the client's errors.

        What was said of an answer that breaks off stays in the conversation; where nothing was, the question
        does not stay either. Calls of tools wait for `give`; a further question drops them.
        """
        return self._go_on(question, [*self._settled(), _message("user", question)])

    def give(self, results: Sequence[str]) -> Generator[Piece, None, None]:
        """Yields the pieces of the answer that follows the results of the tools that were called."""
        assert self.answer is not None, "it has called tools"
        calls = zip(self.answer.tool_calls, results, strict=True)
        given = [{**_message("tool", result), "tool_call_id": call["id"]} for call, result in calls]
        return self._go_on(self.answer.question, [*self._messages, *given])

    def _settled(self) -> list[dict[str, Any]]:
        """Returns what was said, without calls that nobody has answered."""
        return [*self._messages[:-1]] if self._waits() else self._messages

    def _waits(self) -> bool:
        return bool(self._messages and self._messages[-1].get("tool_calls"))

    def _go_on(self, question: str, asked: list[dict[str, Any]]) -> Generator[Piece, None, None]:
        gathered = _Gathered()
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
                        yield from gathered.take(choice.delta)
        finally:
            said = gathered.message()
            calls = tuple(said.get("tool_calls") or ())
            self.answer = Answer(
                self.model, question, said["content"] or "", finish, usage, gathered.thoughts, calls
            )
            if gathered.has_some or finish:
                self._messages = [*asked, said]


class _Gathered:
    """Puts the deltas of one answer together."""

    def __init__(self) -> None:
        self.thoughts = ""
        self._content = ""
        self._calls: dict[int, dict[str, Any]] = {}

    @property
    def has_some(self) -> bool:
        """Whether anything was said that a later turn needs."""
        return bool(self._content or self._calls)

    def take(self, delta: Any) -> Iterator[Piece]:
        """Takes a delta, and yields what of it is shown."""
        if thought := getattr(delta, "reasoning_content", None):
            self.thoughts += thought
            yield Piece(thought, is_thought=True)
        if delta.content:
            self._content += delta.content
            yield Piece(delta.content)
        for piece in delta.tool_calls or ():
            empty = {"type": "function", "function": {"name": "", "arguments": ""}}
            call = self._calls.setdefault(piece.index, {"id": piece.id, **empty})
            call["function"]["name"] += piece.function.name or ""
            call["function"]["arguments"] += piece.function.arguments or ""

    def message(self) -> dict[str, Any]:
        """Returns the message that the answer is, as the next turn sends it."""
        said: dict[str, Any] = _message("assistant", self._content)
        if self.thoughts:
            said["reasoning_content"] = self.thoughts
        if self._calls:
            said |= {"content": self._content or None, "tool_calls": list(self._calls.values())}
        return said


def safe_in_terminal(text: str) -> str:
    """Returns a text without the control characters by which it could take hold of a terminal."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_control(each) else each for each in text)


def _is_control(character: str) -> bool:
    return (character < " " and character not in LAYOUT) or "\x7f" <= character <= "\x9f"


def _message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}
