"""Rows that the model would not see as they are meant fail their job, each with its line."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from transformers import AutoTokenizer

from app.events.models import JobEvent
from app.jobs.models import Job
from tests.chat_templates import tokenizer_of
from tests.tiny_model import byte_tokenizer, make_tiny_model
from tests.workers.rows import chat_rows, data_rows, fresh, make_file, make_job, make_model, make_tuned_job
from tests.workers.rows import preference_rows as pairs
from workers.jobs.validators import validate_all

CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "[]"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}


@pytest.fixture
def knowing_more(db: Session, tiny_folder: Path, tmp_path: Path) -> Path:
    """The tiny model with a tokenizer that knows a token more than it."""
    folder = tmp_path / "more"
    shutil.copytree(tiny_folder, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens("<tool>")
    tokenizer.save_pretrained(folder)
    make_model(db, str(folder))
    return folder


def failed(db: Session, job: Job) -> dict[str, Any]:
    validate_all("me", threading.Event())
    error = fresh(db, job).error
    assert error is not None
    return error


@pytest.mark.parametrize("kind", ["reinforcement", "supervised", "dpo", "canary"])
def test_a_token_without_an_embedding_row_is_named(db: Session, knowing_more: Path, kind: str) -> None:
    prompts, chats, preferences = data_rows(), chat_rows(10), pairs(10)
    prompts[2]["messages"][0]["content"] = "Use <tool> now."
    chats[2]["messages"][-1]["content"] = "I use <tool>."
    preferences[2]["non_preferred_output"][0]["content"] = "I use <tool>."
    if kind == "reinforcement":
        job = make_job(db, training=prompts)
    elif kind == "canary":
        texts = [{"text": "One."}, {"text": "Two."}, {"text": "A <tool>."}]
        job = make_job(db, canary_file=make_file(db, texts, "canary.jsonl").id)
    else:
        job = make_tuned_job(db, kind, chats if kind == "supervised" else preferences)
    error = failed(db, job)
    file = "canary_file" if kind == "canary" else "training_file"
    assert (error["code"], error["param"]) == (f"invalid_{file}", file)
    assert f"no embedding row for the token '<tool>' ({len(byte_tokenizer())};" in error["message"]
    assert "row on line 3" in error["message"]


@pytest.mark.parametrize("kind", ["reinforcement", "supervised", "dpo"])
def test_arguments_that_are_no_object_are_named(db: Session, tiny_model: Path, kind: str) -> None:
    prompts, chats, preferences = data_rows(), chat_rows(10), pairs(10)
    for messages in (prompts[1]["messages"], preferences[1]["input"]["messages"]):
        messages[:0] = [CALLING, {"role": "tool", "content": "4", "tool_call_id": "a"}]
    chats[1]["messages"].append(CALLING)
    rows = {"reinforcement": prompts, "supervised": chats, "dpo": preferences}[kind]
    job = make_job(db, training=rows) if kind == "reinforcement" else make_tuned_job(db, kind, rows)
    message = failed(db, job)["message"]
    assert "line 2: " in message
    assert "tool_calls[0].function.arguments must be a JSON object, as text, not a list" in message


@pytest.fixture
def thinking(db: Session, tmp_path: Path) -> Path:
    """A tiny model with Qwen3's template."""
    folder = make_tiny_model(tmp_path / "thinking", tokenizer=tokenizer_of("qwen3"), context=4096)
    make_model(db, str(folder))
    return folder


def told(db: Session, job: Job) -> list[str]:
    query = select(JobEvent.message).where(JobEvent.job_id == job.id).order_by(JobEvent.seq)
    return list(db.scalars(query))


def test_a_job_says_what_its_effort_became(db: Session, thinking: Path) -> None:
    job = make_job(db, hyperparameters={"reasoning_effort": "low", "max_completion_tokens": 200})
    validate_all("me", threading.Event())
    config = fresh(db, job).config
    assert config is not None
    assert (config["max_thinking_tokens"], config["template_kwargs"]) == (40, {"enable_thinking": True})
    assert (
        "How the model thinks for the reasoning effort 'low': its chat template is given"
        " enable_thinking=True; thoughts get 20% of max_completion_tokens."
    ) in told(db, job)


def test_no_thinking_is_switched_off_in_the_template(db: Session, thinking: Path) -> None:
    job = make_job(db, hyperparameters={"max_thinking_tokens": 0})
    validate_all("me", threading.Event())
    config = fresh(db, job).config
    assert config is not None
    assert (config["max_thinking_tokens"], config["template_kwargs"]) == (0, {"enable_thinking": False})


def test_a_variable_that_the_template_does_not_read_is_refused(db: Session, thinking: Path) -> None:
    error = failed(db, make_job(db, hyperparameters={"template_kwargs": {"thinking_budget": 3}}))
    assert error["param"] == "method.reinforcement.hyperparameters.template_kwargs"
    assert "reads no variable 'thinking_budget'" in error["message"]
    assert "enable_thinking" in error["message"]


def test_a_wish_that_means_nothing_is_doubted(db: Session, tiny_model: Path) -> None:
    job = make_job(db, hyperparameters={"reasoning_effort": "high"})
    validate_all("me", threading.Event())
    assert fresh(db, job).status == "queued"
    assert "reasoning_effort changes nothing: the model's chat template shows no thoughts." in told(db, job)
