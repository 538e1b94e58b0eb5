"""A completion is taken apart: into its thoughts, its answer and the tools that it called.

Thoughts are told by the marks of the chat template (`thought_marks.py`), what follows them by a response
template (`response.py`): the tokenizer's own, or one that reads what the chat template writes. No text may
get lost on the way: a completion that does not lie in its parts and marks is `unparsed`
(docs/decisions/0042-thoughts-by-the-template.md).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from workers.training.base.parts import Parts
from workers.training.rendering.ends import template_end_ids
from workers.training.rendering.response import ANSWER, Response, ResponseReader, Unparsed, thought_fields
from workers.training.rendering.response_templates import call_tag_of, marks_in, response_template_of
from workers.training.rendering.template import TOOL, template_of
from workers.training.rendering.thought_marks import PROMPT_TAIL, Start, ThoughtMarks, marks_of
from workers.training.rendering.thought_tokens import ThoughtTokens
from workers.training.rendering.variables import thinking_switches
from workers.training.rendering.vocabulary import special_tokens

SHOWN = 60
"""Characters of a text that a fault shows. Chosen, not measured."""
PROMPT_ENDS = 4096
"""Ends of prompts whose meaning is remembered. A run has few; chosen, not measured."""


def reader_of(tokenizer: Any, end_ids: Collection[int] = ()) -> PartsReader | None:
    """Returns what takes completions of a tokenizer's model apart; None where its family is not known.

    Graders then tell thoughts by tags (graders/thoughts.py). `end_ids` end a completion, beside those of the
    template. The tokenizer stays as it is.
    """
    if not tokenizer.chat_template:
        return None
    response = response_template_of(tokenizer)
    marks = marks_of(tokenizer)
    if marks is None and response is not None:
        marks = next(filter(None, map(marks_in, thought_fields(response))), None)
    if response is None and marks is None:
        return None
    return PartsReader(tokenizer, marks, response, end_ids)


class _Split(NamedTuple):
    """Holds thoughts, None without any, and what follows them, None where they were not closed."""

    thoughts: str | None
    rest: str | None
    thought_tokens: int


class PartsReader:
    """Takes completions of one tokenizer's model apart. Threads may share it.

    Attributes:
        marks: how thoughts begin and end; None of a family without any.
        thoughts: the same as tokens.
        calls_tools: whether its tool calls are understood.
        call_tag: what they begin with; "" where that is no tag.
    """

    def __init__(
        self,
        tokenizer: Any,
        marks: ThoughtMarks | None,
        response: Mapping[str, Any] | None,
        end_ids: Collection[int] = (),
    ) -> None:
        """`response` is the response template; None where what follows thoughts is all answer."""
        self.marks = marks
        self.thoughts = None if marks is None else ThoughtTokens(tokenizer, marks)
        self._tokenizer = tokenizer
        self.call_tag = call_tag_of(tokenizer)
        self._response = None if response is None else ResponseReader(response, self.call_tag)
        self.calls_tools = self._response is not None and self._response.has_calls
        self._end_ids = {*end_ids, *template_end_ids(tokenizer), tokenizer.eos_token_id}
        self._structure = self._found_structure()
        between = self._structure if marks is None else {*self._structure, marks.bridge, marks.restart}
        self._between = sorted(between - {""}, key=len, reverse=True)
        self._start = lru_cache(PROMPT_ENDS)(self._found_start)

    @property
    def may_think(self) -> bool:
        """Whether completions may begin with thoughts, by what the template shows or can be told to."""
        if self.marks is None:
            return False
        return self.marks.is_shown or bool(thinking_switches(template_of(self._tokenizer, None).text))

    def start(self, prompt: Sequence[int]) -> Start:
        """Returns where a completion of a prompt starts: before any thoughts, in them, or in the answer."""
        return self._start(tuple(prompt[-PROMPT_TAIL:]))

    def read(
        self,
        prompt: Sequence[int],
        tokens: Sequence[int],
        tools: Sequence[Mapping[str, Any]] | None = None,
        text: str | None = None,
    ) -> Parts:
        """Returns the parts of a completion of a prompt, whose `tools` it might call.

        `text` is that of the tokens, where a stop string has cut it.
        """
        end = self._text(tokens[-1:]) if tokens and tokens[-1] in self._end_ids and text is None else ""
        text = self._text(tokens) if text is None else text
        split = self._split(self.start(prompt), text, tokens)
        if split.rest is None:
            thoughts = (split.thoughts or "").removesuffix(end).strip()
            return Parts(thoughts or None, is_cut_in_thoughts=True, thought_tokens=split.thought_tokens)
        thoughts = (split.thoughts or "").strip()
        try:
            parts = self._rest(split.rest, end, tools, has_thoughts=split.thoughts is not None)
        except Unparsed as fault:
            return Parts(fault=str(fault), thought_tokens=split.thought_tokens)
        return Parts(thoughts or None, parts.answer, parts.calls, thought_tokens=split.thought_tokens)

    def _split(self, start: Start, text: str, tokens: Sequence[int]) -> _Split:
        """Parts thoughts from what follows them. A closing mark alone closes thoughts that nobody opened."""
        if self.marks is None or self.thoughts is None:
            return _Split(None, text, 0)
        opening, closing = self.marks.opening, self.marks.closing
        if start != "thoughts" and text.lstrip().startswith(opening):
            start, inside = "before", text.lstrip().removeprefix(opening)
        elif start == "thoughts" or (closing in text and not self.marks.header):
            start, inside = "thoughts", text
        else:
            return _Split(None, text, 0)
        thoughts, closed, rest = inside.partition(closing)
        return _Split(thoughts, rest if closed else None, self.thoughts.count(tokens, start))

    def _rest(
        self, text: str, end: str, tools: Sequence[Mapping[str, Any]] | None, *, has_thoughts: bool
    ) -> Parts:
        """Returns answer and calls of what follows the thoughts. Raises `Unparsed`."""
        if has_thoughts and self._is_before_header(text.removesuffix(end)):
            return Parts()
        found = self._response_of(text, tools)
        self._check_lost(found.lost)
        if found.of(*(name for name in found.texts if name != ANSWER)):
            raise Unparsed("The completion has thoughts behind its thoughts, or behind its answer.")
        answers = [piece.removesuffix(end) for piece in found.of(ANSWER)]
        answers = [piece for piece in answers if piece.strip()]
        if len(answers) > 1:
            raise Unparsed("The completion has text before a tool call and text behind it.")
        answer = answers[0] if answers else ""
        for mark in self._structure:
            if mark in answer:
                raise Unparsed(f"The answer holds {mark!r}, which is no text of an answer.")
        if has_thoughts or found.calls:
            answer = answer.strip()
        return Parts(None, answer, tuple(found.calls))

    def _response_of(self, text: str, tools: Sequence[Mapping[str, Any]] | None) -> Response:
        if self._response is not None:
            return self._response.read(text, tools)
        header = self.marks.header if self.marks else ""
        if not header:
            return Response({ANSWER: [text]})
        before, _, answer = text.partition(header)
        return Response({ANSWER: [answer]}, lost=[before])

    def _is_before_header(self, text: str) -> bool:
        """Whether a completion was cut between its thoughts and the header of its answer."""
        return (
            self.marks is not None and bool(self.marks.header) and self.marks.bridge.startswith(text.strip())
        )

    def _check_lost(self, lost: Sequence[str]) -> None:
        """Raises `Unparsed` for text that lies in no part, but for what the template writes between parts."""
        for text in lost:
            for mark in self._between:
                text = text.replace(mark, "")
            if text.strip():
                shown = text.strip()[:SHOWN]
                raise Unparsed(f"The completion has text that lies in none of its parts: {shown!r}.")

    def _found_structure(self) -> set[str]:
        """Returns the texts that the template writes between parts, so that none may stand in an answer."""
        templates = [template_of(self._tokenizer, tools).text for tools in (None, [TOOL])]
        structure = {
            token for token in special_tokens(self._tokenizer) if any(token in text for text in templates)
        }
        if self.marks is not None:
            structure |= {self.marks.opening, self.marks.closing, self.marks.header}
        return (structure | {self.call_tag}) - {""}

    def _found_start(self, prompt_end: tuple[int, ...]) -> Start:
        return "before" if self.marks is None else self.marks.start(self._text(prompt_end))

    def _text(self, tokens: Sequence[int]) -> str:
        return str(
            self._tokenizer.decode(
                list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )
