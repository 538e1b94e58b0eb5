"""The vLLM server of `cherry up --vllm`: how it is started, and when it counts as ended."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from app.cli.doctor import check_vllm
from app.embedded import vllm
from app.process import EmbeddedError
from app.settings import Settings
from tests.workers.rollouts.vllm_server import FakeVllm, running

GIVEN: dict[str, Any] = {
    "DATABASE_URL": "postgresql:///",
    "broker_url": "memory://",
    "vllm_python": sys.executable,
}


@pytest.fixture
def python_has_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "why_not_python", lambda _: "")


def settings(**changes: Any) -> Settings:
    return Settings(**{**GIVEN, **changes})


@pytest.mark.usefixtures("python_has_vllm")
def test_it_listens_on_this_machine_alone_and_its_key_is_in_no_command(tmp_path: Path) -> None:
    chosen = settings(vllm_options="--max-lora-rank 128", gpus=0)
    command = vllm.command(chosen, "nano", tmp_path, 8100, sleeps=False)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--logprobs-mode") + 1] == "processed_logprobs"
    assert command[-2:] == ["--max-lora-rank", "128"]
    environment = vllm.environment(chosen, "secret", sleeps=False)
    assert environment["VLLM_API_KEY"] == "secret"
    assert "VLLM_SERVER_DEV_MODE" not in environment
    whole = vllm.environment(settings(vllm_whole_weights=True, gpus=0), "secret", sleeps=False)
    assert whole["VLLM_SERVER_DEV_MODE"] == "1"


def test_a_python_without_vllm_is_refused_with_what_to_do(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no libpython >&2; exit 3\n")
    broken.chmod(0o755)
    found = {
        "": "needs CHERRY_VLLM_PYTHON",
        sys.executable: "has no vLLM: .* -m pip install vllm==",
        "/nowhere/python": "does not start",
        str(broken): "exit 3.*no libpython",
    }
    for python, words in found.items():
        with pytest.raises(EmbeddedError, match=words):
            vllm.command(settings(vllm_python=python), "nano", tmp_path, 8100, sleeps=False)


@pytest.mark.usefixtures("python_has_vllm")
def test_it_can_sleep_only_where_it_shares_the_trainings_gpus(tmp_path: Path) -> None:
    places = ("nano", tmp_path, 8100, "secret")
    found = {
        (gpus, own): vllm.VllmServer(settings(gpus=gpus, vllm_gpus=own), *places, log_path=tmp_path / "log")
        for gpus, own in ((0, ""), (2, ""), (2, "1"))
    }
    assert [server.shares_gpu for server in found.values()] == [False, True, False]
    environment = vllm.environment(settings(gpus=2, vllm_gpus="1"), "secret", sleeps=True)
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["VLLM_SERVER_DEV_MODE"]) == ("1", "1")
    assert vllm.SLEEPS in vllm.command(settings(), "nano", tmp_path, 8100, sleeps=True)


def test_a_server_is_added_to_those_that_the_operator_named() -> None:
    chosen = settings(vllm={"large": {"url": "http://10.0.0.5:8000", "key": "theirs"}})
    can = {"shares_gpu": True, "takes_weights": True}
    told = vllm.with_server(vllm.plain(chosen), "nano", "http://127.0.0.1:1", "ours", **can)
    table = settings(vllm=told).vllm
    keys = {name: entry.key and entry.key.get_secret_value() for name, entry in table.items()}
    assert keys == {"large": "theirs", "nano": "ours"}
    assert (table["nano"].shares_gpu, table["nano"].whole_weights) == (True, True)


def test_the_doctor_asks_each_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with running(FakeVllm(vocabulary=10)) as server:
        table = {"tiny": {"url": server.url}, "gone": {"url": "http://127.0.0.1:9"}}
        monkeypatch.setenv("CHERRY_VLLM", json.dumps(table))
        well, gone = check_vllm(tmp_path)
        server.key = "right"
        refused, _ = check_vllm(tmp_path)
    assert (well.level, "serves tiny" in well.detail) == ("ok", True)
    assert (gone.level, bool(gone.mend)) == ("wrong", True)
    assert "VLLM_API_KEY" in refused.mend
