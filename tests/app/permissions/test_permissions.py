"""A permission lets another project of the organisation use a checkpoint, for as long as it is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2 as httpx
import openai
import pytest
from sqlalchemy.orm import Session

from app.tenants import service as tenants
from tests.app.answers import error_of
from tests.factories import (
    GRADER,
    Tenant,
    make_admin_key,
    make_checkpoint,
    make_file,
    make_job,
    make_tenant,
    make_tuned_model,
)

TUNED = "ft:cherry-nano:acme:x:AbCd1234"


@pytest.fixture
def checkpoint(db: Session, tenant: Tenant) -> str:
    """Name of a checkpoint of the tenant's own: not the one its job delivered."""
    job = make_job(db, tenant.project_id, status="succeeded", fine_tuned_model=TUNED)
    make_checkpoint(db, job, 1)
    make_tuned_model(db, job, TUNED)
    name = make_checkpoint(db, job, 2).model_name
    db.commit()
    return name


@pytest.fixture
def sibling(db: Session, tenant: Tenant) -> Tenant:
    """Another project of the same organisation."""
    project = tenants.create_project(db, tenant.organization_id, "sibling")
    made = tenants.create_key(db, project.id, "key")
    db.commit()
    return Tenant(tenant.organization_id, project.id, made.plaintext, made.row.id)


@contextmanager
def client_of(server_url: str, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server_url}/v1", api_key=key, max_retries=0) as client:
        yield client


def names(client: openai.OpenAI) -> set[str]:
    return {model.id for model in client.models.list()}


def test_permissions_are_made_listed_and_deleted(
    client: openai.OpenAI, db: Session, tenant: Tenant, checkpoint: str
) -> None:
    projects = [tenants.create_project(db, tenant.organization_id, f"p{n}").id for n in range(3)]
    db.commit()
    permissions = client.fine_tuning.checkpoints.permissions
    made = [permissions.create(checkpoint, project_ids=[project]).data[0] for project in projects]
    assert [each.project_id for each in made] == projects
    assert made[0].id.startswith("cp_")
    assert [each.id for each in permissions.list(checkpoint, limit=2)] == [each.id for each in made][::-1]
    ascending = permissions.list(checkpoint, order="ascending", limit=1)
    assert [each.project_id for each in ascending] == projects
    only = permissions.list(checkpoint, project_id=projects[1])
    assert [each.id for each in only] == [made[1].id]
    assert permissions.list(checkpoint, limit=0, after="after", order="ascending").data == []
    again = permissions.create(checkpoint, project_ids=[projects[0], projects[0]]).data
    assert [each.id for each in again] == [made[0].id]
    with pytest.warns(DeprecationWarning, match="deprecated"):
        old = permissions.retrieve(checkpoint, limit=1)
    assert (old.data[0].id, old.has_more, old.last_id) == (made[2].id, True, made[2].id)
    assert permissions.delete(made[0].id, fine_tuned_model_checkpoint=checkpoint).deleted
    with pytest.raises(openai.NotFoundError):
        permissions.delete(made[0].id, fine_tuned_model_checkpoint=checkpoint)


def test_a_checkpoint_is_a_model_of_the_other_project_while_the_permission_is_there(
    server_url: str, http: httpx.Client, sibling: Tenant, checkpoint: str
) -> None:
    path = f"/v1/fine_tuning/checkpoints/{checkpoint}/permissions"
    with client_of(server_url, sibling.key) as other:
        assert names(other) == {"cherry-nano"}
        with pytest.raises(openai.NotFoundError):
            other.models.retrieve(checkpoint)
        made = http.post(path, json={"project_ids": [sibling.project_id]}).json()["data"][0]
        assert names(other) == {"cherry-nano", checkpoint}
        assert other.models.retrieve(checkpoint).owned_by == sibling.organization_id
        with pytest.raises(openai.PermissionDeniedError):
            other.models.delete(checkpoint)
        http.delete(f"{path}/{made['id']}")
        assert names(other) == {"cherry-nano"}
        with pytest.raises(openai.NotFoundError):
            other.models.retrieve(checkpoint)


def test_the_delivered_checkpoint_is_shared_under_the_tuned_models_name(
    server_url: str, http: httpx.Client, sibling: Tenant, checkpoint: str
) -> None:
    path = f"/v1/fine_tuning/checkpoints/{TUNED}/permissions"
    made = http.post(path, json={"project_ids": [sibling.project_id]}).json()["data"][0]
    with client_of(server_url, sibling.key) as other:
        assert names(other) == {"cherry-nano", TUNED}
        assert other.models.retrieve(TUNED).id == TUNED
        with pytest.raises(openai.PermissionDeniedError):
            other.models.delete(TUNED)
    assert http.get("/v1/models").text.count(TUNED) == 1
    http.delete(f"{path}/{made['id']}")
    with client_of(server_url, sibling.key) as other:
        assert names(other) == {"cherry-nano"}


def test_a_shared_model_is_found_as_the_base_of_a_job(
    server_url: str, http: httpx.Client, db: Session, sibling: Tenant, checkpoint: str
) -> None:
    """Without the permission it does not exist; with it the answer is that of a model of one's own."""
    file = make_file(db, sibling.project_id).id
    db.commit()
    method = {"type": "reinforcement", "reinforcement": {"grader": GRADER}}
    headers = {"authorization": f"Bearer {sibling.key}"}

    def create(model: str) -> str:
        job = {"model": model, "training_file": file, "validation_file": file, "method": method}
        sent = httpx.post(f"{server_url}/v1/fine_tuning/jobs", json=job, headers=headers)
        return sent.text.replace(model, "MODEL")

    without = create(checkpoint)
    assert "does not exist" in without
    assert without == create("ft:cherry-nano:acme::none")
    path = f"/v1/fine_tuning/checkpoints/{checkpoint}/permissions"
    http.post(path, json={"project_ids": [sibling.project_id]})
    assert create(checkpoint) != without


def test_projects_of_other_organisations_cannot_be_named(
    http: httpx.Client, db: Session, sibling: Tenant, checkpoint: str
) -> None:
    other = make_tenant(db, "other")
    db.commit()
    path = f"/v1/fine_tuning/checkpoints/{checkpoint}/permissions"
    answers = [
        http.post(path, json={"project_ids": [sibling.project_id, wrong]})
        for wrong in (other.project_id, "proj_none")
    ]
    assert [answer.status_code for answer in answers] == [400, 400]
    assert answers[0].text.replace(other.project_id, "proj_none") == answers[1].text
    assert error_of(answers[0])["param"] == "project_ids[1]"
    assert http.get(path).json()["data"] == []


def test_only_the_owner_and_the_organisations_admin_share(
    server_url: str, http: httpx.Client, db: Session, tenant: Tenant, sibling: Tenant, checkpoint: str
) -> None:
    other = make_tenant(db, "other")
    keys = {
        "owner": tenant.key,
        "admin": make_admin_key(db, tenant.organization_id),
        "sibling": sibling.key,
        "other": other.key,
        "other admin": make_admin_key(db, other.organization_id),
    }
    db.commit()
    path = f"{server_url}/v1/fine_tuning/checkpoints/{checkpoint}/permissions"
    body = {"project_ids": [sibling.project_id]}
    for wanted in (body, None):
        for name, key in keys.items():
            headers = {"authorization": f"Bearer {key}"}
            answer = httpx.request("POST" if wanted else "GET", path, json=wanted, headers=headers)
            expected = 200 if name in ("owner", "admin") else 404
            assert answer.status_code == expected, name
    granted = http.get(path).json()["data"][0]["id"]
    for name in ("sibling", "other", "other admin"):  # to use it is not to give it away
        headers = {"authorization": f"Bearer {keys[name]}"}
        assert httpx.delete(f"{path}/{granted}", headers=headers).status_code == 404


def test_a_checkpoint_that_is_not_kept_is_no_model(
    http: httpx.Client, db: Session, tenant: Tenant, sibling: Tenant, server_url: str
) -> None:
    job = make_job(db, tenant.project_id)
    kept = make_checkpoint(db, job, 1)
    db.commit()
    path = f"/v1/fine_tuning/checkpoints/{kept.model_name}/permissions"
    assert http.get(f"/v1/models/{kept.model_name}").status_code == 200
    assert http.delete(f"/v1/models/{kept.model_name}").status_code == 403
    http.post(path, json={"project_ids": [sibling.project_id]})
    kept.storage_key = None
    db.commit()
    assert http.get(f"/v1/models/{kept.model_name}").status_code == 404
    with client_of(server_url, sibling.key) as other:
        assert names(other) == {"cherry-nano"}
    assert http.post(path, json={"project_ids": [sibling.project_id]}).status_code == 400
