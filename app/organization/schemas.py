"""Projects, service accounts and keys on the wire."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.errors import BadRequest
from app.organization.service import NewAccount, OwnedKey
from app.tenants.models import AdminApiKey, Project, ServiceAccount
from app.tenants.service import NewAdminKey, NewKey
from app.wire import seconds

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Seconds = Annotated[int, Field(ge=1, le=31_536_000)]
Scopes = Annotated[list[str], Field(max_length=64)]
Item = TypeVar("Item")

OPERATOR: dict[str, Any] = {"id": "user-operator", "name": "operator", "role": "owner"}
"""Cherry has no users: keys that belong to no service account are the operator's."""


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ProjectCreate(Request):
    name: Name
    external_key_id: str | None = None
    geography: str | None = None
    residency: str | None = None

    def check(self) -> None:
        """Raises `BadRequest` for what only OpenAI's own service can do."""
        elsewhere = None if self.residency == "GLOBAL" else self.residency
        _refuse(external_key_id=self.external_key_id, geography=self.geography, residency=elsewhere)


class ProjectUpdate(Request):
    name: Name | None = None
    external_key_id: str | None = None
    geography: str | None = None

    def check(self) -> None:
        """Checks as `ProjectCreate.check` does."""
        _refuse(external_key_id=self.external_key_id, geography=self.geography)


class KeyUpdate(Request):
    expires_in_seconds: Seconds | None = None
    scopes: Scopes | None = None

    def check(self) -> None:
        """Raises `BadRequest` for restrictions of a key, which Cherry does not have."""
        _refuse(scopes=self.scopes)


class AccountCreate(Request):
    name: Name
    create_service_account_only: bool | None = None
    expires_in_seconds: Seconds | None = None

    def check(self) -> None:
        """Raises `BadRequest` for an expiry without a key."""
        if self.create_service_account_only and self.expires_in_seconds is not None:
            message = "'expires_in_seconds' needs a key; 'create_service_account_only' asks for none."
            raise BadRequest(message, param="expires_in_seconds", code="invalid_value")


class AccountUpdate(Request):
    name: Name | None = None
    role: Literal["member", "owner"] | None = None


class AccountKeyCreate(Request):
    name: Name = "Secret Key"
    expires_in_seconds: Seconds | None = None
    scopes: Scopes | None = None

    def check(self) -> None:
        """Checks as `KeyUpdate.check` does."""
        _refuse(scopes=self.scopes)


class AdminKeyCreate(Request):
    name: Name
    expires_in_seconds: Seconds | None = None


class ProjectOut(BaseModel):
    id: str
    object: Literal["organization.project"] = "organization.project"
    name: str
    created_at: int
    archived_at: int | None
    status: Literal["active", "archived"]

    @classmethod
    def of(cls, project: Project) -> ProjectOut:
        return cls(
            id=project.id,
            name=project.name,
            created_at=int(project.created_at.timestamp()),
            archived_at=seconds(project.archived_at),
            status="archived" if project.archived_at else "active",
        )


class AccountOut(BaseModel):
    id: str
    object: Literal["organization.project.service_account"] = "organization.project.service_account"
    name: str
    role: Literal["owner", "member", "none"]
    created_at: int

    @classmethod
    def of(cls, account: ServiceAccount) -> AccountOut:
        return cls(**_account(account))


class NewKeyOut(BaseModel):
    """The only answer that shows a service account's key."""

    id: str
    object: Literal["organization.project.service_account.api_key"] = (
        "organization.project.service_account.api_key"
    )
    name: str
    created_at: int
    expires_at: int | None
    value: str

    @classmethod
    def of(cls, made: NewKey) -> NewKeyOut:
        return cls(
            id=made.row.id,
            name=made.row.name,
            created_at=int(made.row.created_at.timestamp()),
            expires_at=seconds(made.row.expires_at),
            value=made.plaintext,
        )


class AccountCreated(AccountOut):
    api_key: NewKeyOut | None

    @classmethod
    def of_new(cls, made: NewAccount) -> AccountCreated:
        return cls(**_account(made.account), api_key=NewKeyOut.of(made.key) if made.key else None)


class KeyOut(BaseModel):
    """A project's key, as it can be shown again and again."""

    id: str
    object: Literal["organization.project.api_key"] = "organization.project.api_key"
    name: str
    redacted_value: str
    created_at: int
    last_used_at: int | None
    expires_at: int | None
    owner: dict[str, Any]
    """`type`, and beside it the `user` or the `service_account`."""
    owner_project_access: Literal["active", "inactive"]

    @classmethod
    def of(cls, owned: OwnedKey) -> KeyOut:
        key = owned.key
        return cls(
            id=key.id,
            name=key.name,
            redacted_value=key.redacted,
            created_at=int(key.created_at.timestamp()),
            last_used_at=seconds(key.last_used_at),
            expires_at=seconds(key.expires_at),
            owner=_owner(owned),
            owner_project_access="active" if owned.is_active else "inactive",
        )


class AdminKeyOut(BaseModel):
    id: str
    object: Literal["organization.admin_api_key"] = "organization.admin_api_key"
    name: str
    redacted_value: str
    created_at: int
    last_used_at: int | None
    expires_at: int | None
    owner: dict[str, Any]

    @classmethod
    def of(cls, key: AdminApiKey) -> AdminKeyOut:
        return cls(**_admin_key(key))


class AdminKeyCreated(AdminKeyOut):
    """The only answer that shows an admin key."""

    value: str

    @classmethod
    def of_new(cls, made: NewAdminKey) -> AdminKeyCreated:
        return cls(**_admin_key(made.row), value=made.plaintext)


class AccountDeleted(BaseModel):
    id: str
    object: Literal["organization.project.service_account.deleted"] = (
        "organization.project.service_account.deleted"
    )
    deleted: bool = True


class KeyDeleted(BaseModel):
    id: str
    object: Literal["organization.project.api_key.deleted"] = "organization.project.api_key.deleted"
    deleted: bool = True


class AdminKeyDeleted(BaseModel):
    id: str
    object: Literal["organization.admin_api_key.deleted"] = "organization.admin_api_key.deleted"
    deleted: bool = True


def lifetime(expires_in_seconds: int | None) -> timedelta | None:
    return None if expires_in_seconds is None else timedelta(seconds=expires_in_seconds)


def _refuse(**fields: object) -> None:
    """Refuses what is accepted only when it is empty, since this service does not have it."""
    for name, value in fields.items():
        if value:
            message = f"'{name}' is not available in this version of Cherry. Leave it out."
            raise BadRequest(message, param=name, code="unsupported_parameter")


def _account(account: ServiceAccount) -> dict[str, Any]:
    created = int(account.created_at.timestamp())
    return {"id": account.id, "name": account.name, "role": account.role, "created_at": created}


def _owner(owned: OwnedKey) -> dict[str, Any]:
    if owned.account:
        return {"type": "service_account", "service_account": _account(owned.account)}
    created = int(owned.key.created_at.timestamp())
    user = {**OPERATOR, "email": "operator@localhost", "created_at": created}
    return {"type": "user", "user": user}


def _admin_key(key: AdminApiKey) -> dict[str, Any]:
    created = int(key.created_at.timestamp())
    return {
        "id": key.id,
        "name": key.name,
        "redacted_value": key.redacted,
        "created_at": created,
        "last_used_at": seconds(key.last_used_at),
        "expires_at": seconds(key.expires_at),
        "owner": {**OPERATOR, "type": "user", "object": "organization.user", "created_at": created},
    }
