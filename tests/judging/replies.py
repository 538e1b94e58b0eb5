"""What a judge replies to each kind of grader, in the form that the grader's JSON schema asks for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.judging.behaviours import Eye
from tests.judging.prompts import answers_of, criteria_of, range_of, text_of
from tests.judging.worth import is_met

Messages = Sequence[dict[str, Any]]
Schema = Mapping[str, Any]
STEPS = [{"description": "reads", "conclusion": "judged"}]
MET = 0.5
"""From this worth on a criterion counts as met, and an answer as one with the first label."""


def reply_to(eye: Eye, body: Mapping[str, Any]) -> str:
    """Returns the content of a reply to a chat request; prose where no form is asked for."""
    messages = body["messages"]
    asked = (body.get("response_format") or {}).get("json_schema") or {}
    form = FORMS.get(asked.get("name", ""))
    if form is None or eye.is_unparsable():
        return "I would rather talk about it than give a number."
    return json.dumps(form(eye, messages, asked["schema"]))


def _score(eye: Eye, messages: Messages, _: Schema) -> dict[str, Any]:
    low, high = range_of(messages)
    [(_, answer), *_] = answers_of(messages)
    seen = eye.sees(answer, text_of(messages))
    return {"steps": STEPS, "result": round(low + (high - low) * seen, 4)}


def _label(eye: Eye, messages: Messages, schema: Schema) -> dict[str, Any]:
    """Returns one of the labels, which stand from the best to the worst."""
    labels = schema["properties"]["label"]["enum"]
    [(_, answer), *_] = answers_of(messages)
    seen = eye.sees(answer, text_of(messages))
    return {"steps": STEPS, "label": labels[min(int((1 - seen) * len(labels)), len(labels) - 1)]}


def _rubric(eye: Eye, messages: Messages, _: Schema) -> dict[str, Any]:
    """Returns a verdict on each criterion: met where the answer has all its quoted words."""
    [(_, answer), *_] = answers_of(messages)
    criteria = criteria_of(messages)
    verdicts = {}
    for place, criterion in enumerate(criteria):
        seen = eye.bent(float(is_met(criterion, answer)), answer, place, len(criteria))
        verdicts[str(place + 1)] = {"reason": "reads", "met": seen >= MET}
    return verdicts


def _rank(eye: Eye, messages: Messages, _: Schema) -> dict[str, Any]:
    """Returns a score for each answer, by its name."""
    answers, prompt = answers_of(messages), text_of(messages)
    scores = [
        {"answer": name, "reason": "reads", "score": round(eye.sees(text, prompt, place, len(answers)), 4)}
        for place, (name, text) in enumerate(answers)
    ]
    return {"scores": scores}


FORMS: dict[str, Callable[[Eye, Messages, Schema], dict[str, Any]]] = {
    "score": _score,
    "label": _label,
    "rubric": _rubric,
    "rank": _rank,
}
"""By the name of the JSON schema that the grader asks for."""
