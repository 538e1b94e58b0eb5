"""A job as it stands in the form: texts of fields on one side, the body of a request on the other."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.dashboard.create import builder
from app.dashboard.create.builder import Edited, Posted
from app.dashboard.create.fields import as_text
from app.dashboard.create.problems import FORMAT, GRADER, MORE, Problem
from app.dashboard.create.reading import number
from app.grading.headers import MASK
from app.jobs.models import Job
from app.jobs.schemas import JobOut
from graders.strict_json import StrictJsonError, loads

METHODS = {
    "reinforcement": "The model writes answers, a grader scores them, and what scored better becomes"
    " likelier. For tasks whose answers can be checked.",
    "supervised": "The model learns to write the answers that your rows hold. For examples of how it should"
    " be done.",
    "dpo": "The model learns to prefer the better of two answers to each prompt. For pairs that people have"
    " compared.",
}
TEXTS = ("model", "training_file", "validation_file", "suffix", "seed")
OPTIONAL = ("validation_file", "suffix", "seed")
FORMATS = {
    "text": "Any text.",
    "json_object": "Any JSON object.",
    "json_schema": "JSON that fits a schema.",
}
SCHEMA = {
    "name": "answer",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {"answer": {"type": "string"}},
        "required": ["answer"],
        "additionalProperties": False,
    },
}
SECRET = f"{MASK} stands for a secret that the clone of a job is not given. Type the secret itself."
SETTABLE = ("grader", "response_format", "hyperparameters")
"""What the form has fields for, in the block of a method."""


@dataclass
class Draft:
    """What stands in the form.

    Attributes:
        method: one of `METHODS`.
        texts: by field, what was typed or chosen.
        numbers: hyperparameters as they were typed; "" is left out.
        grader: of reinforcement jobs.
        format: one of `FORMATS`.
        schema: the `json_schema` of a response format, as text.
        more: the rest of the request, as the text of a JSON object that is merged into it.
    """

    method: str
    texts: dict[str, str]
    numbers: dict[str, str]
    grader: Edited
    format: str = "text"
    schema: str = field(default_factory=lambda: in_lines(SCHEMA))
    more: str = ""

    def body(self) -> tuple[dict[str, Any], list[Problem]]:
        """Returns the body of the request, and what of the form is no JSON."""
        problems: list[Problem] = []
        asked: dict[str, Any] = {name: self.texts[name] for name in TEXTS if self.texts.get(name)}
        if "seed" in asked:
            asked["seed"] = number(asked["seed"])
        block = self._block(problems)
        asked["method"] = {"type": self.method, self.method: block}
        if MASK in self.more:
            problems.append(Problem(MORE, SECRET))
        more = _parsed(self.more, MORE, problems)
        if more is not None and not isinstance(more, dict):
            problems.append(
                Problem(MORE, 'Further settings are one JSON object, such as {"metadata": {...}}.')
            )
        return (merged(asked, more) if isinstance(more, dict) else asked), problems

    def _block(self, problems: list[Problem]) -> dict[str, Any]:
        block: dict[str, Any] = {}
        if self.method == "reinforcement":
            block["grader"] = self.grader.value
            if self.grader.fault:
                problems.append(Problem(GRADER, self.grader.fault))
            if MASK in self.grader.text:
                problems.append(Problem(GRADER, SECRET))
            if self.format == "json_schema":
                schema = _parsed(self.schema, FORMAT, problems)
                block["response_format"] = {"type": "json_schema", "json_schema": schema}
            elif self.format != "text":
                block["response_format"] = {"type": self.format}
        numbers = {name: typed(text) for name, text in self.numbers.items() if text.strip()}
        return {**block, "hyperparameters": numbers} if numbers else block


def of_posted(posted: Posted, action: str = "", row: Mapping[str, Any] | None = None) -> Draft:
    """Returns what a browser has sent, after a button was pressed; a new grader can read `row`."""
    fields = {name: text.replace("\r\n", "\n") for name, text in posted}
    method = fields.get("method", "")
    return Draft(
        method=method if method in METHODS else "reinforcement",
        texts={name: fields.get(name, "").strip() for name in TEXTS},
        numbers={name[3:]: text for name, text in fields.items() if name.startswith("hp/")},
        grader=builder.of_posted(posted, action, row),
        format=fields["format"] if fields.get("format") in FORMATS else "text",
        schema=fields.get("schema", in_lines(SCHEMA)),
        more=fields.get("more", ""),
    )


def of_job(job: Job, organization_id: str) -> Draft:
    """Returns the request that a job was made by, with what the service shows of it.

    Its seed is left out: the clone of a job is another try. The values of secret headers are masked.
    """
    shown = JobOut.of(job, organization_id, paused_as="paused").model_dump(mode="json")
    kind, block = job.method["type"], copy.deepcopy(shown["method"][job.method["type"]])
    requested = job.method[kind].get("hyperparameters") or {}
    numbers = {name: as_text(value) for name, value in requested.items() if value not in ("auto", "default")}
    more = {
        name: shown[name]
        for name in ("metadata", "integrations", "canary_file", "resources")
        if shown.get(name)
    }
    if others := {name: value for name, value in block.items() if name not in SETTABLE}:
        more["method"] = {kind: others}
    texts = {
        "model": job.model,
        "training_file": job.training_file,
        "validation_file": job.validation_file or "",
        "suffix": job.suffix or "",
    }
    asked = block.get("response_format") or {"type": "text"}
    return Draft(
        method=kind,
        texts=texts,
        numbers=numbers,
        grader=builder.of_value(block.get("grader")),
        format=asked["type"],
        schema=in_lines(asked.get("json_schema", SCHEMA)),
        more=in_lines(more) if more else "",
    )


def in_lines(value: Any) -> str:
    """Returns JSON that people read."""
    return json.dumps(value, ensure_ascii=False, indent=2)


def typed(text: str) -> Any:
    """Returns a hyperparameter as JSON has it: numbers, true, false, lists and objects, else the text."""
    try:
        return loads(text.strip().encode())
    except StrictJsonError:
        return text.strip()


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Returns both objects together. Where both have a value it is the second's; objects are merged."""
    both = dict(first)
    for key, value in second.items():
        held = both.get(key)
        both[key] = merged(held, value) if isinstance(held, dict) and isinstance(value, dict) else value
    return both


def _parsed(text: str, place: str, problems: list[Problem]) -> Any:
    if not text.strip():
        return None
    try:
        return loads(text.encode())
    except StrictJsonError as fault:
        problems.append(Problem(place, f"This is no JSON: {fault.message}"))
        return None
