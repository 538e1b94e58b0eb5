"""What the pages of this room read from a request: who has signed in, and the fields of a form."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from app.auth import Caller
from app.dashboard import sign_in
from app.dashboard.create.builder import Posted
from app.db import unit_of_work

MAX_FIELDS = 10_000
"""Fields of a form: a multi of 64 graders has some 30 for each."""


async def posted(request: Request) -> Posted:
    """Returns the fields of the form, in their order."""
    form = await request.form(max_fields=MAX_FIELDS)
    return [(name, value) for name, value in form.multi_items() if isinstance(value, str)]


Fields = Annotated[Posted, Depends(posted)]


def caller_of(request: Request) -> Caller | None:
    """Returns whose key has signed in with this browser, as the API knows a caller."""
    with unit_of_work() as db:
        owner = sign_in.owner(request, db)
        return Caller(owner.key.id, owner.project.id, owner.project.organization_id) if owner else None


def address_of(request: Request) -> str:
    """Returns where the service is, as the browser has called it."""
    return str(request.base_url).rstrip("/")
