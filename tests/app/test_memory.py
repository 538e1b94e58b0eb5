"""Large uploads stay out of memory: a real server process is watched while one passes through it.

`make bench-upload` does the same with a gigabyte.
"""

from __future__ import annotations

import sys
from pathlib import Path

import openai
import pytest

from app.settings import Settings
from benchmarks.api.service import running_api
from benchmarks.api.upload import measure
from tests.factories import Tenant

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


def test_uploading_64_mb_neither_fills_memory_nor_is_written_more_often_than_needed(
    settings: Settings, tenant: Tenant, tmp_path: Path
) -> None:
    with (
        running_api({}) as (url, pid),
        openai.OpenAI(base_url=f"{url}/v1", api_key=tenant.key, max_retries=0) as client,
    ):
        costs = measure(client, pid, 64, tmp_path)
    assert [str(cost) for cost in costs if not cost.is_within_limits()] == []
