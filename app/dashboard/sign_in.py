"""Signs people in to the dashboard, from its own pages only, by a cookie that is no key."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlsplit

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from app.errors import Forbidden
from app.http.rate_limit import Grant, RateLimiter
from app.settings import get_settings
from app.tenants import service as tenants
from app.tenants import sessions
from app.tenants.models import Project
from app.tenants.service import KeyOwner

COOKIE = "cherry_session"
PATH = "/dashboard"
WRONG_KEYS_PER_MINUTE = 10
"""From one address. A key cannot be guessed, whatever the rate: this keeps the log and the database quiet."""


def check_origin(request: Request) -> None:
    """Refuses a form that a page of another site has sent. Raises `Forbidden`.

    It goes by what browsers say and pages cannot change, in the order of Go's net/http
    (`CrossOriginProtection`): Sec-Fetch-Site, else Origin beside Host. Who sends neither is no browser.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is None and (origin is None or _host_of(origin) == request.headers.get("host", "")):
        return
    if site in ("same-origin", "none"):
        return
    raise Forbidden(
        "This form was sent by a page of another site. Sign in on the dashboard itself; if it is behind a "
        "proxy, that must pass on the Host header."
    )


def attempt(request: Request) -> Grant:
    """Counts an attempt of the client's address as a wrong one. `succeeded` takes that back."""
    return _count(request, 1)


def succeeded(request: Request) -> None:
    """Takes an attempt back: only wrong keys count."""
    _count(request, -1)


def begin(db: Session, key: str) -> str | None:
    """Returns what the cookie of a new session holds, or None for a key that opens nothing."""
    owner = tenants.find_key(db, key)
    return sessions.begin(db, owner.key.id) if owner else None


def owner(request: Request, db: Session) -> KeyOwner | None:
    """Returns the key that has signed in with this browser, and its project."""
    token = request.cookies.get(COOKIE)
    return sessions.find(db, token) if token else None


def signed_in(request: Request, db: Session) -> Project | None:
    """Returns the project of whoever has signed in with this browser."""
    found = owner(request, db)
    return found.project if found else None


def end(request: Request, db: Session) -> None:
    """Ends the session of this browser, if it has one."""
    if token := request.cookies.get(COOKIE):
        sessions.end(db, token)


def set_cookie(request: Request, response: Response, token: str) -> None:
    """Gives the browser its session: closed to scripts, to other sites and to other paths."""
    response.set_cookie(
        COOKIE,
        token,
        max_age=round(sessions.LIFETIME / timedelta(seconds=1)),
        path=PATH,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


def _count(request: Request, cost: int) -> Grant:
    limiter: RateLimiter = request.app.state.sign_ins
    address = request.client.host if request.client else ""
    return limiter.take(f"sign-in:{address}", WRONG_KEYS_PER_MINUTE, get_settings().broker_url, cost)


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None
