"""`cherry models push`: one commit to a hub, or a sentence that says what is in the way."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from app.checkpoints.models import Checkpoint
from app.cli.main import cli
from app.cli.output import CliError
from app.jobs.models import Job
from app.storage import get_storage
from tests.app.cli.hub import READS_ONLY, TOKEN, Hub, a_hub
from tests.app.exports.taken import FILES, NANO, add_base, make_taken
from tests.factories import Tenant, make_export

pytestmark = pytest.mark.filterwarnings("ignore:Use .content=")  # huggingface_hub itself
REPO = "ada/people"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with a_hub() as hub:
        yield hub


@pytest.fixture
def taken(db: Session, tenant: Tenant, tmp_path: Path) -> tuple[Job, Checkpoint]:
    shutil.copytree(NANO, tmp_path / "base")
    add_base(db, "mine", tmp_path / "base", licence="mit")
    return make_taken(db, tenant, FILES, model="mine")


class Pushing:
    """Runs the command against a hub. Returns its exit code, what it printed, and what it said is wrong."""

    def __init__(self, hub: Hub, url: str, key: str) -> None:
        self._hub, self._service = hub, ["--url", url, "--key", key]

    def __call__(self, name: str, *more: str, repo: str = REPO, **env: str) -> tuple[int, str, str]:
        arguments = ["models", "push", name, repo, *more, *self._service]
        done = CliRunner().invoke(cli, arguments, env=self._env(env))
        assert done.exception is None or isinstance(done.exception, CliError), done.exception
        return done.exit_code, done.stdout, str(done.exception or "")

    def in_a_shell(self, name: str, *more: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "app.cli.main", "models", "push", name, REPO, *more, *self._service]
        plain = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
        env = plain | self._env(env) | {"HF_HUB_DISABLE_XET": "1"}
        return subprocess.run(command, env=env, capture_output=True, text=True)

    def _env(self, more: dict[str, str]) -> dict[str, str]:
        return {"HF_ENDPOINT": self._hub.url, "HF_TOKEN": TOKEN} | more


@pytest.fixture
def push(hub: Hub, server_url: str, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> Pushing:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # it reads its environment as it is imported
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the other way to send what is large
    return Pushing(hub, server_url, tenant.key)


def is_whole(files: dict[str, bytes]) -> bool:
    """Whether a repository has what its manifest says, and nothing else."""
    noted = json.loads(files["manifest.json"])["files"]
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    del sums["manifest.json"], sums[".gitattributes"]
    return sums == {name: each["sha256"] for name, each in noted.items()}


def test_a_form_becomes_one_private_commit(
    hub: Hub, push: Pushing, taken: tuple[Job, Checkpoint], tmp_path: Path
) -> None:
    done = push.in_a_shell(taken[1].model_name, "--format", "adapter")
    assert done.returncode == 0, done.stderr
    files = hub.files[REPO]
    assert is_whole(files)
    assert hub.visibility == {REPO: "private"}
    assert hub.commits == [f"Add {taken[1].model_name}"]
    assert files["adapter_model.safetensors"] == FILES["adapter/adapter_model.safetensors"]
    assert "base/config.json" in files
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "base"
    card = files["README.md"].decode()
    assert f"`hf download {REPO} --local-dir FOLDER` makes one" in card
    assert "license: mit" in card
    assert str(tmp_path) not in card
    assert f"{hub.url}/{REPO}" in done.stdout


def test_another_form_takes_its_place_only_when_told(
    hub: Hub, push: Pushing, taken: tuple[Job, Checkpoint]
) -> None:
    code, _, err = push(taken[1].id, "--format", "adapter")
    assert code == 0, err
    before = hub.files[REPO]
    code, _, err = push(taken[1].id)
    assert (code, hub.files[REPO]) == (1, before)
    assert f"{REPO} is there already: choose another name, or put this in its place with --replace" in err
    code, out, err = push(taken[1].id, "--replace", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["repo"], told["format"], len(told["commit"])) == (REPO, "merged", 40)
    files = hub.files[REPO]
    assert is_whole(files)
    assert "adapter_config.json" not in files
    assert files["model.safetensors"] == FILES["model/model.safetensors"]


def test_what_a_worker_makes_is_pushed_in_the_open(
    db: Session, hub: Hub, push: Pushing, taken: tuple[Job, Checkpoint]
) -> None:
    facts = {"bytes": 4, "sha256": hashlib.sha256(b"GGUF").hexdigest()}
    get_storage().put_bytes("made/model-f32.gguf", b"GGUF")
    made = {"storage_key": "made", "manifest": {"files": {"model-f32.gguf": facts}}}
    make_export(db, *taken, status="ready", **made)
    db.commit()
    code, _, err = push(taken[1].id, "--format", "gguf", "--public")
    assert code == 0, err
    assert is_whole(hub.files[REPO])
    assert hub.visibility == {REPO: "public"}
    assert hub.files[REPO]["model-f32.gguf"] == b"GGUF"


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"HF_TOKEN": ""}, "HF_TOKEN is not set"),
        ({"HF_TOKEN": "hf_wrong"}, "does not take the token in HF_TOKEN"),
        ({"HF_TOKEN": READS_ONLY}, f"has no right to write to {REPO}"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "http://127.0.0.1:9 does not answer"),
    ],
)
def test_what_is_in_the_way_is_said_and_nothing_is_sent(
    hub: Hub, push: Pushing, taken: tuple[Job, Checkpoint], env: dict[str, str], said: str
) -> None:
    code, _, err = push(taken[1].id, **env)
    assert (code, hub.files) == (1, {})
    assert said in err
    assert "hf_" not in err


@pytest.mark.long
def test_nothing_is_sent_from_a_machine_that_is_offline(
    hub: Hub, push: Pushing, taken: tuple[Job, Checkpoint]
) -> None:
    done = push.in_a_shell(taken[1].id, TRANSFORMERS_OFFLINE="1")
    assert (done.returncode, hub.files) == (1, {})
    assert "TRANSFORMERS_OFFLINE is set, so that nothing is sent" in done.stderr


@pytest.mark.parametrize("repo", ["people", "ada/peo ple", "../x"])
def test_names_that_no_repository_can_have_are_refused(
    hub: Hub, push: Pushing, taken: tuple[Job, Checkpoint], repo: str
) -> None:
    code, _, err = push(taken[1].id, repo=repo)
    assert (code, hub.files) == (1, {})
    assert "epo" in err


def test_a_push_that_was_not_finished_is_gone_on_with(
    hub: Hub, push: Pushing, taken: tuple[Job, Checkpoint]
) -> None:
    hub.is_full = True
    code, _, err = push(taken[1].id)
    assert (code, hub.commits, hub.uploads) == (1, [], 1)
    assert f"413 (Your private storage is full). If {REPO} has been made by now, go on with --replace" in err
    hub.is_full = False
    assert push(taken[1].id, "--replace")[0] == 0
    assert is_whole(hub.files[REPO])
    assert hub.uploads == 1
