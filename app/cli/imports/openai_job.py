"""Makes the request of a job here out of one that was written for OpenAI or Azure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.cli.output import CliError
from app.grading.headers import MASK

WANTED = ("model", "training_file", "validation_file", "suffix", "seed", "metadata", "integrations", "method")
RESPONSE_ONLY = (
    "object",
    "id",
    "created_at",
    "finished_at",
    "estimated_finish",
    "fine_tuned_model",
    "organization_id",
    "status",
    "result_files",
    "trained_tokens",
    "error",
    "usage_metrics",
    "shared_with_openai",
    "eval_id",
    "user_provided_suffix",
    "hyperparameters",
)
"""Fields that only responses hold, and the hyperparameters that they repeat: nothing is lost without them."""
AZURE = {
    "trainingType": "where Azure trains",
    "training_type": "where Azure trains",
    "properties": "Azure's own",
}


@dataclass
class Imported:
    """What to send here, and what was changed for it."""

    body: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def import_job(published: Mapping[str, Any]) -> Imported:
    """Makes a create body out of a published one, or out of a job as a service shows it. Raises
    `CliError`."""
    found = Imported({name: published[name] for name in WANTED if published.get(name) is not None})
    is_response = published.get("object") == "fine_tuning.job"
    if is_response and published.get("user_provided_suffix"):
        found.body["suffix"] = published["user_provided_suffix"]
    if not is_response and published.get("hyperparameters") and "method" not in found.body:
        found.body["hyperparameters"] = published["hyperparameters"]
    for name, value in published.items():
        if name not in WANTED and name not in RESPONSE_ONLY and value is not None:
            found.notes.append(f"left out '{name}': {AZURE.get(name, 'not known here')}")
    if "model" not in found.body:
        raise CliError("the job names no 'model'")
    if isinstance(method := found.body.get("method"), Mapping):
        found.body["method"] = _method(method, found.notes)
    return found


def _method(method: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Returns the block that counts, without what says nothing."""
    kind = method.get("type")
    block = method.get(str(kind))
    if not isinstance(block, Mapping):
        return {"type": kind}
    kept = {name: value for name, value in block.items() if value is not None and value != []}
    others = [name for name in method if name not in ("type", kind) and method[name] is not None]
    notes += [f"left out 'method.{name}': the method is '{kind}'" for name in others]
    notes += _about_tools(block, f"method.{kind}")
    return {"type": kind, str(kind): kept}


def _about_tools(block: Mapping[str, Any], at: str) -> list[str]:
    """Returns what becomes of the tools of an agentic job, a note each."""
    notes = []
    for number, tool in enumerate(block.get("tools") or ()):
        if not isinstance(tool, Mapping):
            continue
        headers = tool.get("headers")
        hidden = isinstance(headers, Mapping) and any(value == MASK for value in headers.values())
        if hidden:
            raise CliError(f"the headers of {at}.tools[{number}] are masked: put in what they were")
        notes.append(
            f"kept '{at}.tools[{number}]': '{tool.get('name')}' is called at {tool.get('server_url')}"
        )
    if block.get("max_episode_steps"):
        notes.append(f"kept '{at}.max_episode_steps': at most {block['max_episode_steps']} turns")
    return notes
