"""pytest plugin (`-p plugin`): the service is reset before each test of the official client's suite.

Its tests know nothing of state: they delete one file fifteen times, and pause, resume and cancel one job.
"""

from __future__ import annotations

import json
import os
import urllib.request

import pytest

RESET = os.environ["TEST_API_BASE_URL"].removesuffix("/v1") + "/conformance/reset"


@pytest.fixture(autouse=True)
def _fresh_service(request: pytest.FixtureRequest) -> None:
    body = json.dumps({"test": request.node.name}).encode()
    asked = urllib.request.Request(RESET, body, {"content-type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        assert answer.status == 204
