"""`cherry models download`: whole, after a broken connection, after a wait, and only where all is well."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import func
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from app.checkpoints.models import Checkpoint
from app.cli.main import cli
from app.cli.output import CliError
from app.cli.taking.download import _unpack
from app.jobs.models import Job
from app.storage import get_storage
from tests.app.exports.taken import FILES, NANO, add_base, make_taken
from tests.damage import flip_last_bit
from tests.factories import Tenant, make_export

LARGE = {**FILES, "model/model.safetensors": bytes(range(256)) * 40_000}


@pytest.fixture
def taken(db: Session, tenant: Tenant) -> tuple[Job, Checkpoint]:
    add_base(db, "built-in", NANO)
    return make_taken(db, tenant, LARGE, model="built-in")


@contextmanager
def cutting(url: str, limits: list[int], asked: bytearray | None = None) -> Iterator[str]:
    """A way to a server that breaks off after so many bytes of a connection's answers, the later ones never.

    `asked` gets what is sent to the server.
    """
    server = urlsplit(url)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    limit = limits.pop(0) if limits else 1 << 40
                    threading.Thread(target=pump, args=(client, limit), daemon=True).start()

        def pump(client: socket.socket, limit: int) -> None:
            with client, socket.create_connection((server.hostname, server.port)) as there:
                threading.Thread(target=copy, args=(client, there, 1 << 40, asked), daemon=True).start()
                copy(there, client, limit)
                for each in (client, there):
                    with suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def copy(source: socket.socket, target: socket.socket, limit: int, seen: bytearray | None = None) -> None:
    with suppress(OSError):
        while limit > 0 and (data := source.recv(65536)):
            if seen is not None:
                seen.extend(data)
            target.sendall(data[:limit])
            limit -= len(data)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder for downloads, and nothing else."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def download(url: str, tenant: Tenant, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["models", "download", *arguments, "--url", url, "--key", tenant.key])


def sums(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


def test_it_is_unpacked_and_told_how_it_is_used(
    server_url: str, tenant: Tenant, taken: tuple[Job, Checkpoint], here: Path
) -> None:
    folder = here / "my model"
    done = download(server_url, tenant, taken[1].model_name, "--format", "adapter", "--to", str(folder))
    assert done.exit_code == 0, done.output
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(folder / "base")
    noted = json.loads((folder / "manifest.json").read_text())["files"]
    assert sums(folder) == {name: each["sha256"] for name, each in noted.items()}
    assert f"from_pretrained('{folder}/base')" in done.output
    assert (
        f"--lora-modules {taken[1].model_name.lower().replace(':', '-').replace('--', '-')}='{folder}'"
        in done.output
    )
    assert list(here.iterdir()) == [folder]
    again = download(server_url, tenant, taken[1].id, "--to", str(folder))
    assert isinstance(again.exception, CliError)
    assert "is there already" in str(again.exception)


def test_it_goes_on_where_the_connection_broke(
    server_url: str, tenant: Tenant, taken: tuple[Job, Checkpoint], here: Path
) -> None:
    folder = here / "whole"
    # The first connection asks which checkpoint it is; the next ones break within the download.
    with cutting(server_url, [1 << 40, 3_000_000, 2_000_000]) as url:
        done = download(url, tenant, taken[1].id, "--to", str(folder), "--json")
    assert done.exit_code == 0, done.output
    assert (
        sums(folder / "model")["model.safetensors"]
        == hashlib.sha256(LARGE["model/model.safetensors"]).hexdigest()
    )


def test_what_broke_off_for_good_is_gone_on_with_by_the_next_command(
    server_url: str, tenant: Tenant, taken: tuple[Job, Checkpoint], here: Path
) -> None:
    folder = here / "whole"
    with cutting(server_url, [1 << 40, 3_000_000, 0, 0, 0, 0, 0]) as url:
        broken = download(url, tenant, taken[1].id, "--to", str(folder))
    assert isinstance(broken.exception, CliError)
    assert "run the command again, and it goes on from there" in str(broken.exception)
    (part,) = [path for path in here.iterdir() if path.suffix == ".part"]
    begun = part.stat().st_size
    assert 2_000_000 < begun < 3_000_000
    asked = bytearray()
    with cutting(server_url, [], asked) as url:
        assert download(url, tenant, taken[1].id, "--to", str(folder)).exit_code == 0
    assert f"range: bytes={begun}-\r\n".encode() in asked.lower()
    assert sums(folder / "model")["config.json"] == hashlib.sha256(LARGE["model/config.json"]).hexdigest()
    assert list(here.iterdir()) == [folder]


def test_a_form_that_is_refused_leaves_nothing(
    server_url: str, tenant: Tenant, taken: tuple[Job, Checkpoint], db: Session, here: Path
) -> None:
    values = {"code": "export_refused", "message": "llama.cpp does not run it."}
    make_export(db, *taken, status="failed", error=values, finished_at=func.now())
    db.commit()
    refused = download(server_url, tenant, taken[1].id, "--format", "gguf", "--to", str(here / "x"))
    assert str(refused.exception) == "llama.cpp does not run it."
    assert list(here.iterdir()) == []


def test_a_damaged_checkpoint_leaves_nothing(
    server_url: str, tenant: Tenant, taken: tuple[Job, Checkpoint], here: Path
) -> None:
    flip_last_bit(f"{taken[1].storage_key}/model/model.safetensors")
    damaged = download(server_url, tenant, taken[1].id, "--to", str(here / "x"))
    assert "is damaged and was not sent" in str(damaged.exception)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("kind", ["above", "absolute", "link"])
def test_nothing_is_unpacked_outside_the_folder(tmp_path: Path, kind: str) -> None:
    part, folder = tmp_path / "x.part", tmp_path / "inner" / "x"
    folder.parent.mkdir()
    names = {"above": "../../evil", "absolute": str(tmp_path / "evil"), "link": "link"}
    with tarfile.open(part, "w") as tar:
        info = tarfile.TarInfo(names[kind])
        if kind == "link":
            info.type, info.linkname = tarfile.SYMTYPE, "../../evil"
        tar.addfile(info, io.BytesIO())
    with suppress(CliError):
        _unpack(part, folder)
    assert not (tmp_path / "evil").exists()
    assert not (folder / "link").is_symlink()


def test_a_checkpoint_of_nobody_is_told(server_url: str, tenant: Tenant, here: Path) -> None:
    none = download(server_url, tenant, "ft:none", "--to", str(here / "x"))
    assert none.exit_code == 1
    assert "No such checkpoint" in str(none.exception)
    assert get_storage().list_keys("jobs") == []
