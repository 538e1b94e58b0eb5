"""What all pages share: the templates, their filters, the navigation, and how a page or an error is shown."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fastapi import Depends, Request
from fastapi.responses import RedirectResponse, Response
from fastapi.templating import Jinja2Templates

from app.dashboard import sign_in
from app.dashboard.times import clock, duration, moment
from app.dashboard.visible import coded, visible
from app.errors import ApiError
from app.tenants.models import Project

REFERRER = {"referrer-policy": "same-origin"}
"""With the edge's `no-referrer` a browser would not say where a form comes from."""
FROM_HERE = [Depends(sign_in.check_origin)]
"""`dependencies` of every route that writes: its form was sent by a page of this dashboard."""


class Link(NamedTuple):
    """An entry of a navigation. `path` is whole, or for a tab of a job what follows the job's."""

    name: str
    path: str


NAVIGATION = [
    Link("Home", "/dashboard"),
    Link("New job", "/dashboard/new"),
    Link("Compare", "/dashboard/compare"),
    Link("Files", "/dashboard/files"),
    Link("Models", "/dashboard/models"),
    Link("Graders", "/dashboard/graders"),
    Link("Evals", "/dashboard/evals"),
    Link("Webhooks", "/dashboard/webhooks"),
    Link("Settings", "/dashboard/settings"),
]
"""Each room adds its own entry, in this order: Home, New job, Compare, Files, Models, Graders, Evals,
Webhooks, Settings."""
JOB_TABS = [
    Link("Overview", ""),
    Link("Samples", "/rollouts"),
    Link("Checkpoints", "/checkpoints"),
]
"""The pages of one job, in this order: Overview, Samples, Checkpoints."""

templates = Jinja2Templates(directory=Path(__file__).parent / "templates")
templates.env.filters |= {
    "visible": visible,
    "coded": coded,
    "moment": moment,
    "clock": clock,
    "duration": duration,
}
templates.env.globals |= {"NAVIGATION": NAVIGATION, "JOB_TABS": JOB_TABS}


def page(
    request: Request, project: Project, template: str, *, status_code: int = 200, **values: object
) -> Response:
    """Renders a page, or a part of one, for somebody who has signed in to a project."""
    shown = {"project": project.name, "here": here(request), **values}
    return templates.TemplateResponse(request, template, shown, status_code=status_code, headers=REFERRER)


def here(request: Request) -> str:
    """Returns the path of the entry of the navigation under which a page lies, or nothing."""
    path = request.url.path
    under = [link.path for link in NAVIGATION if path == link.path or path.startswith(f"{link.path}/")]
    return max(under, key=len, default="")


def to_login(request: Request | None = None) -> Response:
    """Sends a browser to sign in. Give the request where htmx may ask: it would put the door into a part of
    the page."""
    if request is not None and request.headers.get("hx-request"):
        return Response(headers={"hx-redirect": "/dashboard/login"})
    return RedirectResponse("/dashboard/login", status_code=303)


def error_page(request: Request, error: ApiError) -> Response | None:
    """Returns an error as a person reads it: a sentence for htmx, a page for a browser. None for others, who
    get the API's body."""
    values = {"error": error, "status": error.status, "here": ""}
    if request.headers.get("hx-request"):
        template = "parts/problem.html"
    elif "text/html" in request.headers.get("accept", ""):
        template = "problem.html"
    else:
        return None
    return templates.TemplateResponse(
        request, template, values, status_code=error.status, headers={**REFERRER, **(error.headers or {})}
    )
