"""Says in which forms a checkpoint can be had, with the lines that use each, in words for a page."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from app.checkpoints.models import Checkpoint
from app.exports import service as exports
from app.exports.models import Export
from app.exports.schemas import FormOut
from app.exports.use import FOLDER, Format, short_name
from app.jobs.models import Job
from app.storage import Storage

TITLES: dict[Format, tuple[str, str]] = {
    "adapter": ("Adapter", "The LoRA adapter, for PEFT and for vLLM with its base."),
    "merged": ("Merged model", "The whole model, for transformers, vLLM and every server that reads it."),
    "gguf": ("GGUF", "One file for llama.cpp and Ollama, with a Modelfile. A worker makes it on demand."),
}
PROGRAMS = {
    "transformers": "transformers",
    "vllm": "vLLM",
    "llama.cpp": "llama.cpp",
    "ollama": "Ollama",
}
"""What programs are called; a line that only points to another form has no name here."""

OPENAI = """\
from openai import OpenAI

client = OpenAI(base_url="{url}/v1", api_key="YOUR_KEY")
chat = client.chat.completions.create(
    model="{model}",
    messages=[{{"role": "user", "content": "Hello!"}}],
)
print(chat.choices[0].message.content)"""


class Snippet(NamedTuple):
    """Lines to copy, and the program they are for."""

    program: str
    lines: str


class Form(NamedTuple):
    """One form of a checkpoint as a page shows it.

    Attributes:
        refused: why the checkpoint does not have it; None where it does.
        path: where the browser downloads it.
        made: how far a worker is with it; None where none is needed, or nobody has asked.
        snippets: lines that unpack and use it, `FOLDER` standing for where it was unpacked.
    """

    format: Format
    title: str
    meaning: str
    refused: str | None
    path: str
    made: Export | None
    snippets: list[Snippet]

    @property
    def is_made_on_demand(self) -> bool:
        """Says whether a worker has to make it first."""
        return self.format in exports.MADE

    @property
    def is_ready(self) -> bool:
        """Says whether it can be downloaded at once."""
        return not self.is_made_on_demand or (self.made is not None and self.made.status == "ready")


def forms_of(db: Session, job: Job, checkpoint: Checkpoint, name: str, storage: Storage) -> list[Form]:
    """Returns every form of a checkpoint, those it does not have too. `name` is what its model is called."""
    offered = exports.offers(db, job, [checkpoint], storage)[checkpoint.id]
    return [_form(db, job, checkpoint, name, offer) for offer in offered]


def form_of(
    db: Session, job: Job, checkpoint: Checkpoint, name: str, storage: Storage, wanted: Format
) -> Form:
    """Returns one form of a checkpoint."""
    return next(form for form in forms_of(db, job, checkpoint, name, storage) if form.format == wanted)


def openai_snippet(url: str, model: str) -> str:
    """Returns lines that ask this service by OpenAI's client."""
    return OPENAI.format(url=url, model=model)


def _form(db: Session, job: Job, checkpoint: Checkpoint, name: str, offer: FormOut) -> Form:
    title, meaning = TITLES[offer.format]
    made = exports.state_of(db, checkpoint.id, offer.format) if offer.format in exports.MADE else None
    path = f"/dashboard/jobs/{job.id}/checkpoints/{checkpoint.id}/download?format={offer.format}"
    snippets = [] if offer.refused else _snippets(name, offer)
    return Form(offer.format, title, meaning, offer.refused, path, made, snippets)


def _snippets(name: str, offer: FormOut) -> list[Snippet]:
    tar = shlex.quote(f"{short_name(name)}-{offer.format}.tar")
    unpack = f"mkdir -p {FOLDER} && tar -xf {tar} -C {FOLDER}"
    fetch = f"cherry models download {shlex.quote(name)} --format {offer.format} --to {FOLDER}"
    used = [Snippet(PROGRAMS[program], lines) for program, lines in offer.use.items() if program in PROGRAMS]
    return [Snippet("Unpack the download", unpack), Snippet("Or fetch it from a terminal", fetch), *used]


def shown_progress(progress: dict[str, Any] | None) -> str:
    """Returns how far a worker is, as a phrase."""
    if not progress:
        return ""
    share = progress.get("share")
    phase = str(progress.get("phase", "")).replace("_", " ")
    return f"{phase}, {share:.0%}" if isinstance(share, int | float) else phase


def names_of(job: Job, checkpoints: Sequence[Checkpoint], delivered: str | None) -> dict[str, str]:
    """Returns what the models of checkpoints are called, by id: the delivered one as the tuned model."""
    return {
        row.id: str(job.fine_tuned_model) if row.id == delivered else row.model_name for row in checkpoints
    }
