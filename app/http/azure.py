"""Azure's spelling of OpenAI's API: its paths are read as OpenAI's, before anything else looks at a request.

Azure's client puts `/openai` before each path, and `/openai/deployments/NAME` before those that ask a model.
The query `api-version`, which it sends with each request, has no meaning here. The header `api-key` is read
in app/auth.py.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

ASKED = "cherry.asked_path"
"""Where a scope keeps the path as it was asked for, which errors name."""
PREFIX = re.compile(r"/openai/(?:v1/)?(?:deployments/[^/]+/)?")


class AzurePaths:
    """Serves `/openai/...`, `/openai/v1/...` and `/openai/deployments/NAME/...` as `/v1/...`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/openai/"):
            served = served_path(scope["raw_path"].decode("latin-1"))
            scope = {
                **scope,
                "path": unquote(served),
                "raw_path": served.encode("latin-1"),
                ASKED: scope["path"],
            }
        await self.app(scope, receive, send)


def served_path(path: str) -> str:
    """Returns the path of OpenAI's that a path of Azure's, quoted, stands for; any other as it is."""
    return PREFIX.sub("/v1/", path, count=1) if PREFIX.match(path) else path


def asked_path(scope: Scope) -> str:
    """Returns the path as it was asked for."""
    path: str = scope.get(ASKED, scope["path"])
    return path
