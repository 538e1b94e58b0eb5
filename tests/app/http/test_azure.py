"""Azure's client against this service: its endpoint and key are all that changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import openai
import pytest
from anyio.from_thread import start_blocking_portal
from sqlalchemy.orm import Session

from app.http.azure import served_path
from tests.factories import GRADER, ROWS, Tenant, make_checkpoint, make_job, make_tuned_model

VERSION = "2025-04-01-preview"


@pytest.fixture
def azure(request: pytest.FixtureRequest, server_url: str, tenant: Tenant) -> Iterator[openai.AzureOpenAI]:
    """The ways in which people make the client."""
    where: dict[str, dict[str, Any]] = {
        "endpoint": {"azure_endpoint": server_url},
        "deployment": {"azure_endpoint": f"{server_url}/", "azure_deployment": "my-o4-mini"},
        "base": {"base_url": f"{server_url}/openai"},
        "base-v1": {"base_url": f"{server_url}/openai/v1/"},
    }
    with openai.AzureOpenAI(
        **where[getattr(request, "param", "endpoint")],
        api_key=tenant.key,
        api_version=VERSION,
        max_retries=0,
        _strict_response_validation=True,
    ) as client:
        yield client


@pytest.mark.parametrize("azure", ["endpoint", "deployment", "base", "base-v1"], indirect=True)
def test_a_job_is_made_and_followed(azure: openai.AzureOpenAI) -> None:
    files = [
        azure.files.create(file=(name, ROWS), purpose="fine-tune") for name in ("train.jsonl", "valid.jsonl")
    ]
    assert azure.files.content(files[0].id).read() == ROWS
    job = azure.fine_tuning.jobs.create(
        model="cherry-nano",
        training_file=files[0].id,
        validation_file=files[1].id,
        method={"type": "reinforcement", "reinforcement": {"grader": dict(GRADER)}},  # type: ignore[typeddict-item]
        extra_body={"trainingType": "GlobalStandard"},
    )
    assert "trainingType" not in job.to_dict()
    assert azure.fine_tuning.jobs.retrieve(job.id).id == job.id
    assert [one.id for one in azure.fine_tuning.jobs.list(limit=1)] == [job.id]
    said = [event.message for event in azure.fine_tuning.jobs.list_events(job.id, limit=1)]
    assert said[-1] == f"Created fine-tuning job: {job.id}"
    assert azure.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    azure.files.delete(files[0].id)
    with pytest.raises(openai.NotFoundError):
        azure.files.retrieve(files[0].id)


def test_uploads_models_checkpoints_and_graders_are_there(
    azure: openai.AzureOpenAI, db: Session, tenant: Tenant
) -> None:
    job = make_job(db, tenant.project_id, status="succeeded")
    model = make_tuned_model(db, job)
    make_checkpoint(db, job, 5)
    db.commit()
    upload = azure.uploads.upload_file_chunked(
        file=ROWS, filename="t.jsonl", bytes=len(ROWS), mime_type="text/jsonl", purpose="fine-tune"
    )
    assert upload.status == "completed"
    assert {"cherry-nano", model.name} <= {one.id for one in azure.models.list()}
    assert azure.models.retrieve(model.name).id == model.name
    assert [one.step_number for one in azure.fine_tuning.jobs.checkpoints.list(job.id)] == [5]
    grader: Any = dict(GRADER)
    assert azure.fine_tuning.alpha.graders.validate(grader=grader).grader is not None
    ran = azure.fine_tuning.alpha.graders.run(grader=grader, model_sample="x", item={"answer": "x"})
    assert ran.metadata.errors.other_error is False
    made = azure.post(
        "/webhook_endpoints",
        body={"name": "a", "url": "https://8.8.8.8/", "event_types": ["fine_tuning.job.succeeded"]},
        cast_to=httpx.Response,
    )
    assert made.json()["object"] == "webhook_endpoint"


def test_openais_client_works_at_azures_address_too(server_url: str, tenant: Tenant) -> None:
    with openai.OpenAI(base_url=f"{server_url}/openai/v1/", api_key=tenant.key, max_retries=0) as client:
        assert "cherry-nano" in [model.id for model in client.models.list()]


def test_the_asynchronous_client_works_too(server_url: str, tenant: Tenant) -> None:
    async def ask() -> list[str]:
        async with openai.AsyncAzureOpenAI(
            azure_endpoint=server_url, api_key=tenant.key, api_version=VERSION, max_retries=0
        ) as client:
            return [model.id async for model in client.models.list()]

    with start_blocking_portal() as portal:
        assert "cherry-nano" in portal.call(ask)


def test_a_token_of_azures_identity_is_sent_as_openais_key_is(server_url: str, tenant: Tenant) -> None:
    with openai.AzureOpenAI(
        azure_endpoint=server_url, azure_ad_token=tenant.key, api_version=VERSION, max_retries=0
    ) as client:
        assert list(client.models.list())


def test_a_wrong_key_is_named_and_a_missing_one_says_where_it_belongs(
    server_url: str, tenant: Tenant
) -> None:
    with openai.AzureOpenAI(
        azure_endpoint=server_url, api_key=f"{tenant.key}x", api_version=VERSION, max_retries=0
    ) as client:
        with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided") as refused:
            client.models.list()
        assert refused.value.code == "invalid_api_key"
    answer = httpx.get(f"{server_url}/openai/models")
    assert answer.status_code == 401
    assert "api-key" in answer.json()["error"]["message"]


def test_the_header_of_azure_opens_openais_paths_too(server_url: str, tenant: Tenant) -> None:
    assert httpx.get(f"{server_url}/v1/models", headers={"api-key": tenant.key}).status_code == 200


@pytest.mark.parametrize("azure", ["deployment", "base-v1"], indirect=True)
def test_what_is_not_there_is_named_as_it_was_asked_for(
    azure: openai.AzureOpenAI, http: httpx.Client
) -> None:
    with pytest.raises(openai.NotFoundError, match="embeddings is not available in this version") as no:
        azure.embeddings.create(model="cherry-nano", input="a")
    assert "/openai/" in str(no.value)
    for path in ("/openai/nothing", "/openai/v1/nothing", "/openai/deployments/x/nothing"):
        answer = http.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == f"Invalid URL (GET {path})"
    assert http.get("/openai").status_code == 404
    refused = http.put("/openai/files")
    assert refused.status_code == 405
    assert "/openai/files" in refused.json()["error"]["message"]


def test_the_services_own_document_names_each_path_once(http: httpx.Client) -> None:
    assert not [path for path in http.get("/openapi.json").json()["paths"] if "openai" in path]


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("/openai/files", "/v1/files"),
        ("/openai/v1/files/a", "/v1/files/a"),
        ("/openai/v1/deployments/a/embeddings", "/v1/embeddings"),
        ("/openai/deployments/a:b/embeddings", "/v1/embeddings"),
        ("/openai/deployments/a%2Fb/x", "/v1/x"),
        ("/openai/openai/files", "/v1/openai/files"),
        ("/openai", "/openai"),
        ("/v1/openai/files", "/v1/openai/files"),
        ("/openaix/files", "/openaix/files"),
    ],
)
def test_which_path_is_served(asked: str, served: str) -> None:
    assert served_path(asked) == served
