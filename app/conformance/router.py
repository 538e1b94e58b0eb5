"""Serves /conformance, which resets the database to what the client's generated tests expect."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.conformance import seed
from app.conformance.rewrites import RECEIVER, Rewriting
from app.db import unit_of_work

router = APIRouter(include_in_schema=False)

MARK = "cherry.disposable"


class NotDisposable(RuntimeError):
    """Conformance mode wipes its database, so it starts on none that was not marked for it."""


class Reset(BaseModel):
    """`test` is the name of the test that comes next: some need an object in another state."""

    test: str = ""


def install_conformance(app: FastAPI) -> None:
    """Adds the routes and the rewriting layer. Call it after every other layer was added."""
    app.include_router(router)
    app.add_middleware(Rewriting)


def mark_disposable(db: Session) -> None:
    """Allows conformance mode to wipe this database, from the next connection on."""
    name = db.scalar(text("SELECT quote_ident(current_database())"))
    db.execute(text(f"ALTER DATABASE {name} SET {MARK} = 'on'"))


def check_disposable() -> None:
    """Raises `NotDisposable` unless this process's database was marked."""
    with unit_of_work() as db:
        if db.scalar(text("SELECT current_setting(:mark, true)"), {"mark": MARK}) != "on":
            raise NotDisposable(
                "CHERRY_CONFORMANCE wipes the database, and this one is not marked as disposable. Use "
                f"a fresh one and mark it: ALTER DATABASE ... SET {MARK} = 'on'."
            )


@router.post("/conformance/reset", status_code=204)
def reset(request: Request, wanted: Reset) -> Response:
    check_disposable()
    seed.reset(str(request.base_url).rstrip("/"), wanted.test)
    return Response(status_code=204)


@router.post(RECEIVER, status_code=204)
def receiver() -> Response:
    """Takes every webhook."""
    return Response(status_code=204)
