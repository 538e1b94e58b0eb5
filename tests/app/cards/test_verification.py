"""`cherry cards verify`: a card, a download and a public key, and every way in which they may not fit."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.cards import signature
from app.cards.canonical import digest
from app.cards.verification import Unreadable, Verdict, read_document, verify

MARKDOWN = "# Run card\n"


class Made(NamedTuple):
    """A download with a card, as a service gives it."""

    folder: Path
    private: Ed25519PrivateKey

    @property
    def keys(self) -> dict[str, bytes]:
        public = self.private.public_key().public_bytes_raw()
        return {signature.key_id(public): public}

    @property
    def document(self) -> Any:
        return read_document(self.folder / "card.json")

    def verify(self, document: Any = None, download: Path | None = None) -> Verdict:
        return verify(document or self.document, download or self.folder, self.keys)

    def write_card(self, document: Any) -> None:
        (self.folder / "card.json").write_text(json.dumps(document))


def checkpoint_of(step: int, *, kept: bool = True) -> tuple[dict[str, bytes], dict[str, Any], dict[str, Any]]:
    """Files, manifest and the card's entry of a checkpoint."""
    files = {
        "adapter/adapter_model.safetensors": b"adapter of %d" % step,
        "model/model.safetensors": b"weights of %d" % step,
        "model/config.json": b"{}",
    }
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    listed = {name: {"bytes": len(files[name]), "sha256": value} for name, value in sums.items()}
    manifest = {"step": step, "kl": 1e-05, "gain": -0.0, "files": listed}
    entry = {"step": step, "delivered": step == 2, "manifest_sha256": digest({**manifest, "gain": 0})}
    return files, manifest, entry | ({"files": sums} if kept else {})


def make_download(folder: Path, job_id: str = "ftjob-1", step: int = 2, first: int = 1) -> Made:
    private = Ed25519PrivateKey.generate()
    made = [checkpoint_of(number, kept=number != first) for number in range(first, first + 3)]
    card = {"job": {"id": job_id}, "checkpoints": [entry for *_, entry in made]}
    files, manifest, _ = checkpoint_of(step)
    document = signature.signed(signature.document_of(card, MARKDOWN), private)
    texts = {"manifest.json": json.dumps(manifest, indent=1), "card.json": json.dumps(document, indent=1)}
    for name, data in {
        **files,
        "card.md": MARKDOWN.encode(),
        **{k: v.encode() for k, v in texts.items()},
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return Made(folder, private)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_download(tmp_path / "download")


def packed(folder: Path) -> Path:
    path = folder.with_suffix(".tar")
    with tarfile.open(path, "w") as tar:
        for file in sorted(folder.rglob("*")):
            if not file.is_dir():
                tar.add(file, file.relative_to(folder).as_posix(), recursive=False)
    return path


def test_what_a_service_gave_is_verified_as_folder_and_as_tar(made: Made) -> None:
    for download in (made.folder, packed(made.folder)):
        found = made.verify(download=download)
        assert found.problems == []
        assert (found.step, found.delivered, found.job_id, found.files) == (2, True, "ftjob-1", 3)


def test_a_checkpoint_that_is_not_the_delivered_one_is_told_apart(tmp_path: Path) -> None:
    found = make_download(tmp_path / "d", step=3).verify()
    assert (found.problems, found.step, found.delivered) == ([], 3, False)


def of_seeds(made: Made) -> Any:
    """The card of a job of two seeds, signed anew: the download is step 2 of the second, 12 of the job."""
    document = made.document
    own = {"measured": {"arm_seed": 9.0, "arm_step": 2.0}}
    ours = {**checkpoint_of(2)[2], "step": 12} | own
    of_the_first = {**checkpoint_of(5)[2], "step": 2, "measured": {"arm_seed": 7.0, "arm_step": 2.0}}
    card = {**document["card"], "checkpoints": [of_the_first, ours]}
    return signature.signed(signature.document_of(card, MARKDOWN), made.private)


def test_a_checkpoint_of_a_seed_is_found_by_its_manifest_and_not_by_the_step_in_it(made: Made) -> None:
    document = of_seeds(made)
    made.write_card(document)
    found = made.verify(document)
    assert (found.problems, found.step, found.delivered) == ([], 12, True)
    edit_manifest(kl=0.5)(made.folder)
    found = made.verify(document)
    assert found.problems == ["manifest.json differs from that of step 12 in the card"]


def test_a_checkpoint_whose_files_were_dropped_later_is_held_by_its_manifest(tmp_path: Path) -> None:
    made = make_download(tmp_path / "d", step=1)
    assert (made.verify().problems, made.verify().step) == ([], 1)
    (made.folder / "model/model.safetensors").write_bytes(b"other")
    assert "model/model.safetensors differs" in made.verify().problems[0]


def overwrite(name: str, data: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(data)


def edit_manifest(**changed: Any) -> Callable[[Path], Any]:
    def edit(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))

    return edit


def link(folder: Path) -> None:
    target = folder / "model/config.json"
    shutil.move(target, folder.parent / "config.json")
    target.symlink_to(folder.parent / "config.json")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        pytest.param(overwrite("model/model.safetensors", b"x"), "model.safetensors differs", id="weights"),
        pytest.param(overwrite("model/config.json", b"{ }"), "model/config.json differs", id="a small file"),
        pytest.param(overwrite("model/new.py", b"x"), "model/new.py is not in the card", id="one too many"),
        pytest.param(overwrite(".hidden", b"x"), ".hidden is not in the card", id="a hidden one"),
        pytest.param(overwrite("model/card.json", b"{}"), "model/card.json is not in", id="a card elsewhere"),
        pytest.param(
            lambda f: (f / "model/config.json").unlink(), "config.json is missing", id="one missing"
        ),
        pytest.param(lambda f: (f / "manifest.json").unlink(), "manifest.json is missing", id="no manifest"),
        pytest.param(overwrite("manifest.json", b"[]"), "manifest.json is no JSON object", id="odd manifest"),
        pytest.param(edit_manifest(kl=0.5), "manifest.json differs", id="a number of the manifest"),
        pytest.param(edit_manifest(step=3), "manifest.json differs", id="another step's name"),
        pytest.param(
            overwrite("card.md", b"# Better\n"), "card.md is not the text", id="the text for people"
        ),
        pytest.param(overwrite("card.json", b"{}"), "another card", id="the card in the download"),
        pytest.param(link, "model/config.json is no plain file", id="a link"),
    ],
)
def test_whatever_is_changed_in_a_download_is_named(
    made: Made, damage: Callable[[Path], Any], said: str
) -> None:
    document = made.document
    damage(made.folder)
    for download in (made.folder, packed(made.folder)):
        problems = made.verify(document, download).problems
        assert any(said in problem for problem in problems), problems


@pytest.mark.parametrize("part", ["job", "checkpoints", "delivered", "markdown_sha256", "added"])
def test_whatever_is_changed_in_a_card_breaks_its_signature(made: Made, part: str) -> None:
    document = made.document
    if part == "markdown_sha256":
        document[part] = "0" * 64
    elif part == "delivered":
        document["card"]["checkpoints"][0]["delivered"] = True
    else:
        document["card"][part] = {"id": "ftjob-1 "} if part == "job" else []
    made.write_card(document)
    assert any("signature is bad" in problem for problem in made.verify().problems)


def test_white_space_and_order_of_a_card_mean_nothing(made: Made) -> None:
    made.write_card(dict(reversed(made.document.items())))
    assert made.verify().problems == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        pytest.param({"signature": None, "unsigned_reason": "no key"}, "not signed: no key", id="unsigned"),
        pytest.param({"note": "x"}, "no document of the form", id="a part too many"),
        pytest.param({"object": "other"}, "no document of the form", id="another object"),
        pytest.param({"unsigned_reason": "x"}, "not of the form", id="signed and not"),
        pytest.param({"signature": {"algorithm": "none"}}, "is not ed25519", id="no algorithm"),
    ],
)
def test_an_envelope_that_is_not_ours_is_refused(made: Made, changed: dict[str, Any], said: str) -> None:
    made.write_card({**made.document, **changed})
    assert any(said in problem for problem in made.verify().problems)


@pytest.mark.parametrize("value", ["", "AAAA", "not base64!", 5, None], ids=repr)
def test_a_signature_that_is_none_is_bad(made: Made, value: Any) -> None:
    document = made.document
    document["signature"]["value"] = value
    made.write_card(document)
    assert any("signature is bad" in problem for problem in made.verify().problems)


def test_a_key_that_has_not_signed_is_told_with_the_one_that_has(made: Made, tmp_path: Path) -> None:
    other = make_download(tmp_path / "other")
    (problem,) = verify(made.document, made.folder, other.keys).problems
    assert f"signed with the key {next(iter(made.keys))}" in problem
    forged = signature.signed(made.document, other.private)
    forged["signature"]["key_id"] = next(iter(made.keys))
    assert any("signature is bad" in each for each in made.verify(forged).problems)


def test_the_card_of_another_download_is_told_as_that(made: Made, tmp_path: Path) -> None:
    other = make_download(tmp_path / "other", "ftjob-2", step=12, first=11)
    found = verify(made.document, other.folder, made.keys)
    assert any("of another download: it is of ftjob-1" in problem for problem in found.problems)


def test_a_tar_with_a_name_twice_or_cut_short_is_refused(made: Made) -> None:
    path = packed(made.folder)
    with tarfile.open(path, "a") as tar:
        tar.add(made.folder / "card.md", "model/config.json")
    assert "model/config.json is there twice" in made.verify(download=path).problems
    path.write_bytes(b"no tar")
    with pytest.raises(Unreadable, match="neither a folder nor a whole tar"):
        made.verify(download=path)


def test_a_card_with_a_name_twice_is_no_card(made: Made) -> None:
    text = (made.folder / "card.json").read_text()
    (made.folder / "card.json").write_text(text.replace("{", '{"card": {"verdict": "fine"},', 1))
    with pytest.raises(Unreadable, match="name twice"):
        made.verify()


def forms_of(public: bytes) -> dict[str, str]:
    pem = serialization.load_der_public_key(bytes.fromhex("302a300506032b6570032100") + public)
    encoded = base64.b64encode(public).decode()
    retired = base64.b64encode(Ed25519PrivateKey.generate().public_key().public_bytes_raw()).decode()
    return {
        "base64": encoded,
        "pem": pem.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode(),
        "history": json.dumps({"data": [{"public_key": retired}, {"public_key": encoded}]}),
    }


@pytest.mark.parametrize("form", ["base64", "pem", "history"])
def test_a_public_key_may_have_any_of_its_forms(made: Made, form: str) -> None:
    (public,) = made.keys.values()
    keys = signature.read_keys(forms_of(public)[form])
    assert verify(made.document, made.folder, keys).problems == []


@pytest.mark.parametrize("text", ["", "AAAA", "{}", '{"data": [{}]}', "-----BEGIN PUBLIC KEY-----", "sk-x"])
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(signature.KeyUnreadable, match="no ed25519 public key"):
        signature.read_keys(text)


RUN = """
import socket, sys
socket.socket.connect = None
from app.cli.main import main
sys.argv = ["cherry", *sys.argv[1:]]
try:
    main()
finally:
    heavy = {"torch", "transformers", "sqlalchemy", "psycopg", "openai", "fastapi"} & sys.modules.keys()
    assert not heavy, heavy
"""


def test_the_command_needs_no_service_and_its_exit_code_says_what_it_found(
    made: Made, tmp_path: Path
) -> None:
    (public,) = made.keys.values()
    key = tmp_path / "keys.json"
    key.write_text(forms_of(public)["history"])
    arguments = ["cards", "verify", str(made.folder / "card.json"), str(made.folder), "--key"]

    def run(given: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", RUN, *arguments, given, *options]
        env = {"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": ""}
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)

    good = run(str(key))
    assert good.returncode == 0, good.stderr
    assert "Verified: 3 files are those of step 2 of ftjob-1, which the job delivered" in good.stdout
    (made.folder / "model/model.safetensors").write_bytes(b"x")
    bad = run(forms_of(public)["base64"], "--json")
    assert bad.returncode == 1
    told = json.loads(bad.stdout)
    assert not told["verified"]
    assert "model/model.safetensors differs" in told["problems"][0]
