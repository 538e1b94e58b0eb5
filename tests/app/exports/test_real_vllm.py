"""Downloads in a real vLLM, started by the very lines that are told: `make vllm` names its Python."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest
from sqlalchemy.orm import Session

from app.exports.use import short_name
from scripts.vllm.__main__ import ENVIRONMENT, wait_for
from tests.app.exports.at_home import MOST_TOKENS, QUESTIONS, Made, make_trained, unpack
from tests.app.exports.taken import NANO, add_base
from tests.factories import Tenant

PYTHON = os.environ.get("CHERRY_TEST_VLLM_PYTHON", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="no vLLM is here: `make vllm`")
OPTIONS = ("--dtype", "float32", "--enforce-eager", "--host", "127.0.0.1")


@contextmanager
def served(line: str) -> Iterator[str]:
    """A server with the options of a line `vllm serve MODEL ...`, on a free port.

    The package for CPUs has no working `vllm` command: its server is started as a module.
    """
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
    program, serve, model, *words = shlex.split(line)
    assert (program, serve) == ("vllm", "serve")
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", model, *words]
    running = subprocess.Popen([*command, *OPTIONS, "--port", port], env={**os.environ, **ENVIRONMENT})
    try:
        wait_for(f"http://127.0.0.1:{port}", running)
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(60)


def said(url: str, model: str) -> list[str]:
    """Greedy answers of a model. The options that are left out are those of its generation config."""
    texts = []
    for question in QUESTIONS:
        body = {"model": model, "messages": [{"role": "user", "content": question}]}
        options = {"temperature": 0, "max_completion_tokens": MOST_TOKENS}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body | options, timeout=300)
        assert answer.status_code == 200, answer.text
        texts.append(answer.json()["choices"][0]["message"]["content"])
    return texts


@pytest.fixture
def made(db: Session, tenant: Tenant, tmp_path: Path) -> Made:
    add_base(db, "built-in", NANO)
    return make_trained(db, tenant, "built-in", tmp_path / "step_000001")


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_it_writes_the_samplers_text(http: httpx.Client, made: Made, tmp_path: Path, form: str) -> None:
    offered = http.get(f"/v1/fine_tuning/checkpoints/{made.checkpoint.id}").json()["downloads"]
    (line,) = [each["use"]["vllm"] for each in offered if each["format"] == form]
    folder = unpack(http, made, form, tmp_path / form)
    expected = made.adapter_says if form == "adapter" else made.merged_says
    with served(line.replace("FOLDER", str(folder))) as url:
        assert said(url, short_name(made.checkpoint.model_name)) == expected
