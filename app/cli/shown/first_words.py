"""What `cherry` says without a command: whether a service runs, where, and what to do first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from app.cli.connect import DEFAULT_FOLDER
from app.cli.output import console

START = """\
  cherry up                      starts the whole service here; prints its URL, a key and its dashboard
  cherry doctor                  says what this machine has, what is missing, and how to mend it

If one runs elsewhere, name it with --url and --key, or CHERRY_URL and CHERRY_API_KEY; one with another folder
with --data or CHERRY_DATA_DIR."""
NEXT = """\
  cherry files check FILE.jsonl --grader GRADER.json      finds faults by line, before anything is uploaded
  cherry jobs create --model cherry-nano --train FILE.jsonl --grader GRADER.json --wait
  cherry jobs list               jobs, with step and reward
  cherry chat MODEL              talks with a model, tuned or not"""
ALL = """\
All commands: cherry --help. One of them: cherry jobs create --help.
Completion by Tab: cherry --install-completion."""


def show() -> None:
    """Prints the first words."""
    for line in lines():
        console.print(line, markup=False, soft_wrap=True)


def lines() -> Iterator[str]:
    """Yields what a newcomer should read first."""
    number = version("cherry-rft")
    yield f"Cherry {number}: reinforcement fine-tuning on your own machines, behind OpenAI's API.\n"
    where = running()
    if where is None:
        yield f"No service runs on {folder()}. To begin:\n"
        yield f"{START}\n"
        yield "Then:\n"
    else:
        yield f"{where}\n"
        yield "What to do with it:\n"
    yield f"{NEXT}\n"
    yield ALL


def folder() -> Path:
    """Returns the folder of the service that commands speak to unless told otherwise."""
    return Path(os.environ.get("CHERRY_DATA_DIR") or DEFAULT_FOLDER)


def running() -> str | None:
    """Says where the service is that commands speak to; None if there is none."""
    from app.embedded.supervisor import read_state

    if url := os.environ.get("CHERRY_URL"):
        return f"Commands speak to the service at {url} (CHERRY_URL)."
    state = read_state(folder())
    if state is None:
        return None
    url = state["url"]
    return (
        f"A service runs at {url}/v1 (folder {folder()}, process {state['pid']}).\n"
        f"Its dashboard is {url}/dashboard; its key is in {folder() / 'api_key'}."
    )
