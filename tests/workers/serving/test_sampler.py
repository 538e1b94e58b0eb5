"""The sampler: OpenAI's client against its real server, over real models and the real database."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.applications import Starlette

from app.settings import get_settings
from app.storage import get_storage
from graders import Sample, build_grader, parse_grader
from tests.factories import Tenant, make_job, make_tenant, make_tuned_model, store_model
from tests.factories import make_model as add_model
from tests.tiny_model import byte_tokenizer, make_tiny_model
from tests.workers.serving.support import HELLO, TOKEN, chat, client_of
from workers.serving.server import create_sampler


def test_a_chat_is_answered_and_counted(client: openai.OpenAI) -> None:
    reply = chat(client, n=3, temperature=0.7)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in reply.choices}) == 3
    assert reply.usage.prompt_tokens == len("<>user:hello<><>assistant:") - 3  # each marker is one token
    assert reply.usage.completion_tokens == 36
    assert {choice.finish_reason for choice in reply.choices} == {"length"}
    assert reply.model == "tiny"


def test_messages_that_the_template_would_leave_out_are_refused(
    client: openai.OpenAI, db: Session, tmp_path: Path
) -> None:
    template = "{% for m in messages if m.role == 'user' %}{{ m.content }}<end>{% endfor %}"
    add_model(db, "deaf", make_tiny_model(tmp_path / "deaf", tokenizer=byte_tokenizer(template)))
    db.commit()
    messages = [{"role": "system", "content": "Be brief."}, *HELLO]
    with pytest.raises(openai.BadRequestError, match="leaves out the text of a system message"):
        chat(client, model="deaf", messages=messages)


def test_a_seed_gives_the_same_answer_alone_and_in_company(
    client: openai.OpenAI, sampler: tuple[str, Starlette]
) -> None:
    alone = [chat(client, seed=seed).choices[0].message.content for seed in range(12)]
    assert len(set(alone)) == 12
    counts = sampler[1].state.engine.counts
    before = counts.steps
    with ThreadPoolExecutor(12) as threads:
        together = list(
            threads.map(lambda seed: chat(client, seed=seed).choices[0].message.content, range(12))
        )
    assert together == alone
    assert counts.steps - before < 12 * 12  # some went side by side


def test_without_a_seed_answers_differ(client: openai.OpenAI) -> None:
    assert len({chat(client, seed=None).choices[0].message.content for _ in range(3)}) == 3


def test_a_reply_keeps_to_a_schema(client: openai.OpenAI) -> None:
    town = {"type": "object", "properties": {"name": {"enum": ["Pisa", "Rome"]}}, "required": ["name"]}
    asked = {"type": "json_schema", "json_schema": {"name": "town", "schema": town}}
    reply = chat(client, n=8, response_format=asked, max_completion_tokens=300)
    done = [choice.message.content for choice in reply.choices if choice.finish_reason == "stop"]
    assert done
    assert {json.loads(text)["name"] for text in done} <= {"Pisa", "Rome"}
    cut = chat(client, response_format=asked, max_completion_tokens=4).choices[0]
    assert cut.finish_reason == "length"
    assert cut.message.content.lstrip().startswith("{")


def test_the_clients_parse_gets_its_type(client: openai.OpenAI) -> None:
    """Greedy and with a name of a few letters, so that the tiny model comes to an end."""

    class Choice(BaseModel):
        town: bool

    reply = client.chat.completions.parse(
        model="tiny", messages=HELLO, response_format=Choice, temperature=0, max_completion_tokens=350  # type: ignore[arg-type]
    )  # fmt: skip
    assert reply.choices[0].message.parsed in (Choice(town=True), Choice(town=False))


def test_stop_and_logprobs(client: openai.OpenAI) -> None:
    reply = chat(client, logprobs=True, temperature=0)
    content = reply.choices[0].logprobs.content
    assert len(content) == 12
    assert all(token.logprob <= 0 for token in content)
    text = reply.choices[0].message.content
    stopped = chat(client, temperature=1e-320, stop=[text[3]])  # as good as 0
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == (
        text[: text.index(text[3])],
        "stop",
    )


REFUSED = {
    "model": ({"model": "nobody"}, openai.NotFoundError, "model", "model_not_found"),
    "functions": (
        {"extra_body": {"functions": []}},
        openai.BadRequestError,
        "functions",
        "unknown_parameter",
    ),
    "temperature": ({"temperature": 3}, openai.BadRequestError, "temperature", "decimal_above_max_value"),
    "messages": ({"messages": []}, openai.BadRequestError, "messages", None),
    "long": (
        {"messages": [{"role": "user", "content": "x" * 700}]},
        openai.BadRequestError,
        "messages",
        "context_length_exceeded",
    ),
    "image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        openai.BadRequestError,
        "messages[0].content[0]",
        None,
    ),
    "schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "x"}}}},
        openai.BadRequestError,
        "response_format.json_schema.schema",
        "invalid_json_schema",
    ),
}


@pytest.mark.parametrize(("change", "raised", "param", "code"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_answered_is_refused_by_name(
    client: openai.OpenAI, change: dict[str, Any], raised: type[openai.APIStatusError], param: str, code: str
) -> None:
    with pytest.raises(raised) as caught:
        chat(client, **change)
    assert caught.value.param == param
    assert code is None or caught.value.code == code
    assert chat(client).choices  # and it goes on


def test_only_who_holds_the_token_is_served(sampler: tuple[str, Starlette], tenant: Tenant) -> None:
    for key in ("", "wrong", TOKEN + "x", tenant.key):
        with (
            client_of(sampler[0], tenant.project_id, key or "none") as stranger,
            pytest.raises(openai.AuthenticationError),
        ):
            chat(stranger)


def test_a_sampler_without_a_token_serves_nobody(db: Session, tenant: Tenant) -> None:
    from starlette.testclient import TestClient

    app = create_sampler(
        get_settings().model_copy(update={"sampler_token": type(get_settings().sampler_token)("")})
    )
    with TestClient(app) as http:
        assert http.post("/projects/x/v1/chat/completions", json={}).status_code == 401
        assert http.get("/healthz").status_code == 200
        assert http.get("/v1/models").status_code == 404


@pytest.mark.parametrize("store", ["", "memory:///"], ids=["local", "remote"])
def test_a_tuned_model_is_its_projects_own_and_loaded_on_demand(
    sampler: tuple[str, Starlette],
    tenant: Tenant,
    db: Session,
    folder: Path,
    store: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CHERRY_STORAGE_URL", store)
    get_settings.cache_clear()
    get_storage.cache_clear()
    other = make_tenant(db, "other")
    job = make_job(db, tenant.project_id, model="tiny")
    tuned = make_tuned_model(db, job)
    db.commit()
    store_model(folder, tuned.storage_key or "")
    engine = sampler[1].state.engine
    with client_of(sampler[0], tenant.project_id) as mine, client_of(sampler[0], other.project_id) as theirs:
        base = chat(mine, temperature=0).choices[0].message.content
        assert engine.bases == ["tiny"]
        assert (
            chat(mine, model=tuned.name, temperature=0).choices[0].message.content == base
        )  # the same weights
        assert engine.bases == [tuned.name]  # one at a time in memory
        assert list((get_settings().data_dir / "sampler").iterdir()) == []  # and no copy on the disk
        with pytest.raises(openai.NotFoundError):
            chat(theirs, model=tuned.name)
        get_storage().delete_prefix(tuned.storage_key or "")
        chat(mine)
        with pytest.raises(openai.NotFoundError, match="are gone"):
            chat(mine, model=tuned.name)


def test_our_own_model_is_the_judge(
    sampler: tuple[str, Starlette], tenant: Tenant, monkeypatch: pytest.MonkeyPatch, db: Session
) -> None:
    from app.grading.services import forget_services, grader_services

    monkeypatch.setenv("CHERRY_SAMPLER_URL", sampler[0])
    get_settings.cache_clear()
    forget_services()
    spec = parse_grader(
        {
            "type": "label_model",
            "name": "judge",
            "model": "tiny",
            "labels": ["good", "bad"],
            "passing_labels": ["good", "bad"],
            "input": [{"role": "user", "content": "Is {{sample.output_text}} good?"}],
        }
    )
    services: Any = grader_services(tenant.project_id)
    grader = build_grader(spec, services)
    grades = [grader.grade(Sample(text), {}) for text in "abcdefgh"]
    judged = [grade for grade in grades if grade.value is not None]
    assert {grade.value for grade in judged} == {1.0}
    assert all(grade.usage["tiny"].completion_tokens > 0 for grade in judged)
    from graders import GraderInvalid

    stranger = make_tenant(db, "stranger")
    db.commit()
    nobody = parse_grader({**spec.model_dump(exclude_unset=True), "model": "nobody"})
    with pytest.raises(GraderInvalid, match="no judge 'nobody'"):
        build_grader(nobody, grader_services(stranger.project_id))
    for judge in services.judge._judges._made.values():
        judge.server._client.close()  # its connections are kept for the next question


def test_nothing_of_torch_is_loaded_before_a_model_is_needed() -> None:
    code = (
        "import sys; from app.settings import Settings; from workers.serving.server import create_sampler\n"
        "settings = Settings(database_url='postgresql://nobody@nowhere/none', broker_url='memory://')\n"
        "create_sampler(settings).state.engine.close()  # which waits for its thread\n"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
