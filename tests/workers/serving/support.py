"""What the tests of the sampler share: its token, and how it is asked."""

from __future__ import annotations

from typing import Any

import openai

TOKEN = "only-between-ourselves"
HELLO = [{"role": "user", "content": "hello"}]


def client_of(url: str, project_id: str, key: str = TOKEN, **options: Any) -> openai.OpenAI:
    base = f"{url}/projects/{project_id}/v1"
    return openai.OpenAI(base_url=base, api_key=key, max_retries=0, **options)


def chat(client: openai.OpenAI, **changes: Any) -> Any:
    asked: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_completion_tokens": 12, "seed": 5}
    return client.chat.completions.create(**{**asked, **changes})


def complete(client: openai.OpenAI, **changes: Any) -> Any:
    asked: dict[str, Any] = {"model": "tiny", "prompt": "hello", "max_tokens": 12, "seed": 5}
    return client.completions.create(**{**asked, **changes})
