"""Asks two models the same question at the same time, through the inference that the API has."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request

from app.auth import Caller
from app.chat.schemas import ChatCreate
from app.errors import ApiError
from app.inference.asking import ask, model_name
from app.inference.reply import Choice, whole

MAX_PROMPT = 32_768
"""Characters of a prompt or a system message in the box. Chosen, not measured."""
MAX_TOKENS = 2048


class Question(BaseModel):
    """What the box was sent. Its fields' errors are sentences beside them."""

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT)]
    system: Annotated[str, Field(max_length=MAX_PROMPT)] = ""
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] = 256

    def of(self, model: str) -> ChatCreate:
        """Returns the question as the API would get it."""
        system = [{"role": "system", "content": self.system}] if self.system.strip() else []
        return ChatCreate(
            model=model,
            messages=[*system, {"role": "user", "content": self.prompt}],
            temperature=self.temperature,
            max_completion_tokens=self.max_tokens,
        )


class Answer(NamedTuple):
    """What one model said, or why it said nothing."""

    title: str
    model: str
    choice: Choice | None
    tokens: int
    problem: str | None


SENTENCES = {
    "prompt": f"Write a prompt of 1 to {MAX_PROMPT:,} characters.",
    "system": f"The system message has at most {MAX_PROMPT:,} characters.",
    "temperature": "The temperature is a number from 0 to 2.",
    "max_tokens": f"The most tokens are a whole number from 1 to {MAX_TOKENS:,}.",
}


def question_of(form: Mapping[str, Any]) -> tuple[Question | None, dict[str, str]]:
    """Returns the question that a form holds, or what is wrong with each field of it."""
    given = {name: form[name] for name in SENTENCES if name in form}
    try:
        return Question.model_validate(given), {}
    except ValidationError as problem:
        wrong = {str(error["loc"][0]) for error in problem.errors()}
        return None, {name: SENTENCES[name] for name in SENTENCES if name in wrong}


async def answers(
    request: Request, caller: Caller, question: Question, models: Mapping[str, str]
) -> list[Answer]:
    """Asks each of the models, by title, and returns what they said, in this order."""
    asked = (_answer(request, caller, question, title, model) for title, model in models.items())
    return list(await asyncio.gather(*asked))


async def _answer(request: Request, caller: Caller, question: Question, title: str, model: str) -> Answer:
    try:
        body = question.of(model).asked()
        reply = await ask(request, caller, await model_name(caller, model, []), "chat/completions", body)
        choices = await whole(reply)
    except ApiError as problem:
        return Answer(title, model, None, 0, problem.message)
    return Answer(title, model, choices[0], reply.usage.completion, None)
