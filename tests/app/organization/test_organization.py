"""Admin keys manage projects, service accounts and keys of their organisation, and of no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx2 as httpx
import openai
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.main import create_app
from app.settings import Settings
from app.tenants import service as tenants
from tests.app.answers import error_of
from tests.app.http import openai_schema
from tests.app.test_tenants import filled, routes
from tests.factories import Tenant, make_tenant

ORGANIZATION = "/v1/organization"


@pytest.fixture(params=[False, True], ids=["loose", "strict"])
def managing(
    request: pytest.FixtureRequest, server_url: str, tenant: Tenant, admin_key: str
) -> Iterator[Any]:
    """`client.admin.organization` of the official client."""
    with openai.OpenAI(
        base_url=f"{server_url}/v1",
        api_key=tenant.key,
        admin_api_key=admin_key,
        max_retries=0,
        _strict_response_validation=request.param,
    ) as client:
        yield client.admin.organization


def opens(server_url: str, key: str) -> bool:
    answer = httpx.get(f"{server_url}/v1/models", headers={"authorization": f"Bearer {key}"})
    assert answer.status_code in (200, 401)
    return answer.status_code == 200


def test_projects_are_made_renamed_listed_and_archived(managing: Any, tenant: Tenant) -> None:
    made = [managing.projects.create(name=f"p{n}") for n in range(3)]
    assert managing.projects.retrieve(made[0].id).name == "p0"
    assert managing.projects.update(made[0].id, name="new").name == "new"
    listed = list(managing.projects.list(limit=2))
    assert [each.id for each in listed] == [tenant.project_id, *(each.id for each in made)]
    archived = managing.projects.archive(made[0].id)
    assert archived.status == "archived"
    assert archived.archived_at
    assert managing.projects.archive(made[0].id).archived_at == archived.archived_at
    assert made[0].id not in [each.id for each in managing.projects.list()]
    assert made[0].id in [each.id for each in managing.projects.list(include_archived=True)]
    with pytest.raises(openai.BadRequestError, match="archived"):
        managing.projects.update(made[0].id, name="again")
    with pytest.raises(openai.BadRequestError, match="archived"):
        managing.projects.service_accounts.create(made[0].id, name="x")


def test_a_service_account_has_a_key_that_opens_its_project(managing: Any, server_url: str) -> None:
    project = managing.projects.create(name="p")
    made = managing.projects.service_accounts.create(project.id, name="ci")
    assert (made.name, made.role) == ("ci", "member")
    assert opens(server_url, made.api_key.value)
    headers = {"authorization": f"Bearer {made.api_key.value}", "openai-project": project.id}
    assert httpx.get(f"{server_url}/v1/models", headers=headers).status_code == 200
    account = managing.projects.service_accounts.retrieve(made.id, project_id=project.id)
    assert [each.id for each in managing.projects.service_accounts.list(project.id)] == [account.id]
    changed = managing.projects.service_accounts.update(
        made.id, project_id=project.id, name="x", role="owner"
    )
    assert (changed.name, changed.role) == ("x", "owner")
    second = managing.projects.service_accounts.api_keys.create(made.id, project_id=project.id, name="two")
    assert opens(server_url, second.value)
    keys = list(managing.projects.api_keys.list(project.id, limit=1))
    assert [(each.id, each.name) for each in keys] == [(made.api_key.id, "Secret Key"), (second.id, "two")]
    assert all(each.owner.service_account.id == made.id for each in keys)
    assert made.api_key.value not in str(keys)
    deleted = managing.projects.service_accounts.delete(made.id, project_id=project.id)
    assert deleted.deleted
    assert not opens(server_url, made.api_key.value)
    assert not opens(server_url, second.value)
    assert managing.projects.api_keys.list(project.id).data == []


def test_a_key_is_shown_and_deleted(managing: Any, server_url: str, tenant: Tenant) -> None:
    (key,) = managing.projects.api_keys.list(tenant.project_id).data
    assert (key.id, key.owner.type, key.owner_project_access) == (tenant.key_id, "user", "active")
    assert managing.projects.api_keys.retrieve(key.id, project_id=tenant.project_id).redacted_value
    assert managing.projects.api_keys.delete(key.id, project_id=tenant.project_id).deleted
    assert not opens(server_url, tenant.key)
    with pytest.raises(openai.NotFoundError):
        managing.projects.api_keys.retrieve(key.id, project_id=tenant.project_id)


def test_keys_of_an_archived_project_stop_working(managing: Any, server_url: str, tenant: Tenant) -> None:
    assert opens(server_url, tenant.key)
    managing.projects.archive(tenant.project_id)
    assert not opens(server_url, tenant.key)
    page = managing.projects.api_keys.list(tenant.project_id, owner_project_access="inactive")
    assert [each.id for each in page.data] == [tenant.key_id]
    assert managing.projects.api_keys.list(tenant.project_id, owner_project_access="active").data == []


def test_an_account_without_a_role_has_keys_that_open_nothing(managing: Any, server_url: str) -> None:
    project = managing.projects.create(name="p")
    made = managing.projects.service_accounts.create(project.id, name="x", create_service_account_only=True)
    assert (made.role, made.api_key) == ("none", None)
    key = managing.projects.service_accounts.api_keys.create(made.id, project_id=project.id)
    assert not opens(server_url, key.value)
    (listed,) = managing.projects.api_keys.list(project.id, owner_project_access="inactive").data
    assert (listed.id, listed.owner_project_access) == (key.id, "inactive")
    managing.projects.service_accounts.update(made.id, project_id=project.id, role="member")
    assert opens(server_url, key.value)


def test_keys_expire(managing: Any, server_url: str, db: Session) -> None:
    project = managing.projects.create(name="p")
    made = managing.projects.service_accounts.create(project.id, name="x", expires_in_seconds=60)
    lifetime = made.api_key.expires_at - made.api_key.created_at
    assert lifetime == 60
    assert opens(server_url, made.api_key.value)
    later = managing.projects.api_keys.update(made.api_key.id, project_id=project.id, expires_in_seconds=3600)
    assert later.expires_at > made.api_key.expires_at
    db.execute(text("UPDATE api_keys SET expires_at = now() WHERE service_account_id IS NOT NULL"))
    db.commit()
    assert not opens(server_url, made.api_key.value)
    with pytest.raises(openai.BadRequestError, match="expired"):
        managing.projects.api_keys.update(made.api_key.id, project_id=project.id, expires_in_seconds=3600)


def test_admin_keys_are_made_listed_and_deleted(managing: Any, server_url: str, db: Session) -> None:
    made = managing.admin_api_keys.create(name="second", expires_in_seconds=31_536_000)
    as_second = {"authorization": f"Bearer {made.value}"}
    projects = f"{server_url}{ORGANIZATION}/projects"
    assert httpx.get(projects, headers=as_second).status_code == 200
    assert managing.admin_api_keys.retrieve(made.id).name == "second"
    oldest = [each.id for each in managing.admin_api_keys.list(limit=1)]
    assert oldest[-1] == made.id
    assert [each.id for each in managing.admin_api_keys.list(order="desc", limit=1)] == oldest[::-1]
    assert made.value not in str(list(managing.admin_api_keys.list()))
    assert managing.admin_api_keys.delete(made.id).deleted
    assert httpx.get(projects, headers=as_second).status_code == 401
    brief = managing.admin_api_keys.create(name="brief", expires_in_seconds=1)
    db.execute(text("UPDATE admin_api_keys SET expires_at = now() WHERE name = 'brief'"))
    db.commit()
    refused = httpx.get(projects, headers={"authorization": f"Bearer {brief.value}"})
    assert (refused.status_code, error_of(refused)["code"]) == (401, "invalid_api_key")


def test_each_kind_of_key_is_refused_where_the_other_belongs(
    http: httpx.Client, admin: httpx.Client, settings: Settings, subtests: pytest.Subtests
) -> None:
    ids = {"project_id": "x", "api_key_id": "x", "service_account_id": "x", "key_id": "x"}
    for method, path in routes(create_app(settings)):
        if path.startswith(ORGANIZATION):
            with subtests.test(f"{method} {path}"):
                refused = http.request(method, filled(path, ids), json={})
                assert (refused.status_code, error_of(refused)["code"]) == (403, "insufficient_permissions")
    for path in ("/v1/models", "/v1/files", "/v1/fine_tuning/jobs", "/v1/webhook_endpoints"):
        refused = admin.get(path)
        assert (refused.status_code, error_of(refused)["code"]) == (403, "insufficient_permissions")


@pytest.fixture
def theirs(db: Session) -> dict[str, str]:
    """One of everything, of another organisation."""
    other = make_tenant(db, "other")
    made = tenants.create_admin_key(db, other.organization_id, "admin")
    account = f"svc_acct_{'a' * 24}"
    insert = "INSERT INTO service_accounts (id, project_id, name, role) VALUES (:id, :project, 'x', 'member')"
    db.execute(text(insert), {"id": account, "project": other.project_id})
    db.commit()
    return {
        "project_id": other.project_id,
        "api_key_id": other.key_id,
        "service_account_id": account,
        "key_id": made.row.id,
        "key": made.plaintext,
    }


def test_anothers_id_answers_byte_for_byte_like_none(
    admin: httpx.Client,
    server_url: str,
    theirs: dict[str, str],
    settings: Settings,
    subtests: pytest.Subtests,
) -> None:
    none = {name: re.sub(r"[A-Za-z0-9]{8}\Z", "x" * 8, value) for name, value in theirs.items()}
    bodies = {f"{ORGANIZATION}/projects/{{project_id}}/service_accounts": {"name": "x"}}
    tried = 0
    for method, path in sorted(routes(create_app(settings)), reverse=True):
        if not path.startswith(ORGANIZATION) or "{" not in path:
            continue
        with subtests.test(f"{method} {path}"):
            tried += 1
            body = bodies.get(path, {}) if method == "POST" else None
            answers = [admin.request(method, filled(path, ids), json=body) for ids in (theirs, none)]
            assert [answer.status_code for answer in answers] == [404, 404], answers[0].text
            first, second = (answer.text for answer in answers)
            for name, value in theirs.items():
                first = first.replace(value, none[name])
            assert first == second
            if method == "GET":
                owner = {"authorization": f"Bearer {theirs['key']}"}
                assert httpx.get(server_url + filled(path, theirs), headers=owner).status_code == 200
    assert tried == 17
    assert theirs["project_id"] not in admin.get(f"{ORGANIZATION}/projects").text
    assert theirs["key_id"] not in admin.get(f"{ORGANIZATION}/admin_api_keys").text


def test_a_key_of_one_project_cannot_be_reached_through_another(admin: httpx.Client, tenant: Tenant) -> None:
    other = admin.post(f"{ORGANIZATION}/projects", json={"name": "x"}).json()["id"]
    path = f"{ORGANIZATION}/projects/{other}/api_keys/{tenant.key_id}"
    assert admin.get(path).status_code == 404
    assert admin.delete(path).status_code == 404


def test_headers_must_name_the_organisation_and_one_of_its_projects(
    admin: httpx.Client, tenant: Tenant, theirs: dict[str, str]
) -> None:
    path = f"{ORGANIZATION}/projects"
    own = {"openai-organization": tenant.organization_id, "openai-project": tenant.project_id}
    assert admin.get(path, headers=own).status_code == 200
    other_project = admin.get(path, headers={"openai-project": theirs["project_id"]})
    assert (other_project.status_code, error_of(other_project)["code"]) == (401, "invalid_project")
    other = admin.get(path, headers={"openai-organization": "org-other"})
    assert (other.status_code, error_of(other)["code"]) == (401, "invalid_organization")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("projects", {}, "name"),
        ("projects", {"name": ""}, "name"),
        ("projects", {"name": "x", "residency": "US_STORAGE_PROCESSING"}, "residency"),
        ("projects", {"name": "x", "geography": "EU"}, "geography"),
        ("admin_api_keys", {"name": "x", "expires_in_seconds": 0}, "expires_in_seconds"),
        ("admin_api_keys", {"name": "x", "expires_in_seconds": 31_536_001}, "expires_in_seconds"),
        ("projects/{project_id}/service_accounts", {"name": "x", "role": "owner"}, "role"),
        (
            "projects/{project_id}/service_accounts",
            {"name": "x", "create_service_account_only": True, "expires_in_seconds": 5},
            "expires_in_seconds",
        ),
        ("projects/{project_id}/api_keys/{api_key_id}", {"scopes": ["api.all.read"]}, "scopes"),
    ],
)
def test_wrong_fields_are_named(
    admin: httpx.Client, tenant: Tenant, path: str, body: dict[str, Any], param: str
) -> None:
    ids = {"project_id": tenant.project_id, "api_key_id": tenant.key_id}
    answer = admin.post(f"{ORGANIZATION}/{path.format(**ids)}", json=body)
    assert (answer.status_code, error_of(answer)["param"]) == (400, param)


def test_the_global_residency_is_what_every_project_has(admin: httpx.Client) -> None:
    answer = admin.post(f"{ORGANIZATION}/projects", json={"name": "x", "residency": "GLOBAL"})
    assert answer.status_code == 200


def test_the_default_project_cannot_be_archived(server_url: str, db: Session) -> None:
    project = tenants.ensure_default_tenant(db)
    made = tenants.create_admin_key(db, project.organization_id, "admin")
    db.commit()
    headers = {"authorization": f"Bearer {made.plaintext}"}
    answer = httpx.post(f"{server_url}{ORGANIZATION}/projects/{project.id}/archive", headers=headers)
    assert answer.status_code == 400


def test_answers_fit_the_published_schemas(admin: httpx.Client, tenant: Tenant) -> None:
    openai_schema.check(admin.get(f"{ORGANIZATION}/projects").json(), "ProjectListResponse")
    keys = admin.get(f"{ORGANIZATION}/projects/{tenant.project_id}/api_keys").json()
    openai_schema.check(keys, "ProjectApiKeyListResponse")
    path = f"{ORGANIZATION}/projects/{tenant.project_id}/service_accounts"
    openai_schema.check(admin.post(path, json={"name": "x"}).json(), "ProjectServiceAccountCreateResponse")
    openai_schema.check(admin.get(path).json(), "ProjectServiceAccountListResponse")
    made = admin.post(f"{ORGANIZATION}/admin_api_keys", json={"name": "x"}).json()
    openai_schema.check(made, "AdminApiKeyCreateResponse")


def test_an_admin_key_is_no_key_of_the_dashboard_and_is_stored_as_a_digest(
    server_url: str, db: Session, tenant: Tenant, admin_key: str
) -> None:
    stored = db.scalars(text("SELECT string_agg(k::text, ' ') FROM admin_api_keys k")).one()
    assert admin_key not in stored
    assert tenants.find_key(db, admin_key) is None
    assert tenants.find_admin_key(db, tenant.key) is None
    over = tenants.create_admin_key(db, tenant.organization_id, "x", expires_after=timedelta(seconds=-1))
    assert tenants.find_admin_key(db, over.plaintext) is None


def test_a_walk_goes_on_behind_what_has_left_the_list_meanwhile(managing: Any, tenant: Tenant) -> None:
    projects = [managing.projects.create(name=f"p{n}").id for n in range(2)]
    managing.projects.archive(projects[0])
    assert [each.id for each in managing.projects.list(after=projects[0])] == projects[1:]
    accounts = [managing.projects.service_accounts.create(tenant.project_id, name=f"a{n}") for n in range(2)]
    keys = [made.api_key.id for made in accounts]
    managing.projects.api_keys.delete(keys[0], project_id=tenant.project_id)
    assert [each.id for each in managing.projects.api_keys.list(tenant.project_id, after=keys[0])] == keys[1:]
