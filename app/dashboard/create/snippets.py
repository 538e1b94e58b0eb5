"""The request of a job as curl, as Python with the official client, and for the command line."""

from __future__ import annotations

import json
import pprint
import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

KEY = "CHERRY_API_KEY"
"""The variable that snippets take the key from: a key never stands in a page."""
OF_CLIENT = (
    "model",
    "training_file",
    "validation_file",
    "suffix",
    "seed",
    "metadata",
    "integrations",
    "method",
)
"""What the official client's method has parameters for."""
OF_COMMAND = ("model", "training_file", "validation_file", "suffix", "seed", "metadata", "method")
OF_BLOCK = ("grader", "response_format", "hyperparameters")


class Snippet(NamedTuple):
    """One way to start the same job."""

    id: str
    title: str
    text: str
    note: str = ""


def snippets(body: Mapping[str, Any], base_url: str) -> list[Snippet]:
    """Returns the same job in each form. `base_url` is the service's, without /v1."""
    return [
        Snippet("python", "Python", in_python(body, base_url), "It needs the package openai."),
        Snippet("curl", "curl", in_curl(body, base_url)),
        in_command(body, base_url),
    ]


def in_python(body: Mapping[str, Any], base_url: str) -> str:
    """Returns a program that starts the job with the official client and prints its id."""
    lines = [f"    {name}={_literal(body[name])}," for name in OF_CLIENT if name in body]
    if others := {name: value for name, value in body.items() if name not in OF_CLIENT}:
        lines.append(f"    extra_body={_literal(others)},")
    arguments = "\n".join(lines)
    return (
        "import os\n\nfrom openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{base_url}/v1", api_key=os.environ["{KEY}"])\n'
        f"job = client.fine_tuning.jobs.create(\n{arguments}\n)\nprint(job.id)\n"
    )


def _literal(value: Any) -> str:
    text = pprint.pformat(value, width=96, sort_dicts=False)
    return text.replace("\n", "\n    ")


def in_curl(body: Mapping[str, Any], base_url: str) -> str:
    """Returns a command for a POSIX shell. No line of JSON is the word that ends the text."""
    return (
        f"curl {shlex.quote(base_url + '/v1/fine_tuning/jobs')} \\\n"
        f'  -H "Authorization: Bearer ${KEY}" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d @- <<'JSON'\n{_json(body)}\nJSON\n"
    )


def in_command(body: Mapping[str, Any], base_url: str) -> Snippet:
    """Returns the command line's form; a note says what it has no option for."""
    method = body["method"]
    block: Mapping[str, Any] = method.get(method["type"]) or {}
    files, words = [], ["cherry", "jobs", "create", "--model", str(body.get("model", ""))]
    words += ["--train", str(body.get("training_file", "")), "--method", method["type"]]
    for name, option in (("validation_file", "--valid"), ("suffix", "--suffix"), ("seed", "--seed")):
        words += [option, str(body[name])] if name in body else []
    for name in ("grader", "response_format"):
        if name in block:
            files.append(f"cat > {name}.json <<'JSON'\n{_json(block[name])}\nJSON\n")
            words += [f"--{name.replace('_', '-')}", f"{name}.json"]
    for name, value in (block.get("hyperparameters") or {}).items():
        words += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    for name, value in (body.get("metadata") or {}).items():
        words += ["--metadata", f"{name}={value}"]
    words += ["--url", base_url, "--wait"]
    lost = [
        *(name for name in body if name not in OF_COMMAND),
        *(name for name in block if name not in OF_BLOCK),
    ]
    note = f"The command has no option for {' and '.join(lost)}: use one of the other forms." if lost else ""
    text = "".join(files) + _wrapped(words)
    return Snippet("cli", "Command line", text, note or f"It takes the key from {KEY}, too.")


def _wrapped(words: list[str]) -> str:
    """Returns a command with an option a line."""
    lines = [" ".join(words[:3])]
    for word in words[3:]:
        if word.startswith("--"):
            lines.append(f"  {word}")
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return " \\\n".join(lines) + "\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)
