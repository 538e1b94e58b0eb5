"""Holds a checkpoint, as it was downloaded, against its card. Needs these two and a public key alone."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from app.cards import signature
from app.cards.canonical import digest
from app.cards.signature import CARD_FILE, MARKDOWN_FILE, SignatureWrong

MANIFEST = "manifest.json"
BESIDE = frozenset({CARD_FILE, MARKDOWN_FILE, MANIFEST})
"""Files of a download that are no part of the checkpoint."""
WEIGHTS = ".safetensors"
CHUNK = 1 << 20
MOST_SMALL = 64 * 2**20
"""Bytes of a card or manifest that are read at most: larger ones are none of ours."""


class Unreadable(Exception):
    """A card or download cannot be read; the message says which and why."""


class Entry(NamedTuple):
    """One file of a download."""

    sha256: str
    text: bytes
    """What is in it, of the files that are no part of the checkpoint."""


@dataclass
class Verdict:
    """What a comparison has found. `problems` is empty if all is as the card says."""

    step: int | None = None
    job_id: str = ""
    delivered: bool = False
    key_id: str = ""
    files: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.problems


def read_document(path: Path) -> Any:
    """Returns a card as it was handed out. Raises `Unreadable`."""
    try:
        if path.stat().st_size > MOST_SMALL:
            raise Unreadable(f"{path} is too large to be a card")
        return json.loads(path.read_bytes(), object_pairs_hook=_object)
    except (ValueError, RecursionError):
        raise Unreadable(f"{path} is no card: it is not JSON, or has a name twice") from None


def verify(document: Any, download: Path, keys: Mapping[str, bytes]) -> Verdict:
    """Compares an unpacked download, or its tar, with a card. Raises `Unreadable` if there is no such
    download."""
    verdict = Verdict()
    try:
        signature.check(document, keys)
    except SignatureWrong as wrong:
        verdict.problems.append(str(wrong))
    else:
        verdict.key_id = document["signature"]["key_id"]
    if not isinstance(document, dict) or not isinstance(document.get("card"), dict):
        return verdict
    found = dict(_entries(download, verdict.problems))
    try:
        _compare(document, found, verdict)
    except (KeyError, TypeError, AttributeError, ValueError) as problem:
        verdict.problems.append(f"the card is not of the form that Cherry writes: {problem!r}")
    return verdict


def _compare(document: Mapping[str, Any], found: Mapping[str, Entry], verdict: Verdict) -> None:
    card = document["card"]
    verdict.job_id = card["job"]["id"]
    files = {name: entry.sha256 for name, entry in found.items() if name not in BESIDE}
    verdict.files = len(files)
    _check_beside(document, found, verdict.problems)
    manifest = _manifest(found, verdict.problems)
    if _is_of_another(card, manifest, files):
        verdict.problems.append(
            f"the card is of another download: it is of {verdict.job_id}, none of whose checkpoints has these"
            " weights or this manifest"
        )
        return
    checkpoint = _checkpoint(card, manifest, files)
    if checkpoint is None:
        verdict.problems.append(f"the card of {verdict.job_id} knows no checkpoint that this could be")
        return
    verdict.step, verdict.delivered = checkpoint["step"], checkpoint["delivered"]
    if manifest is not None and digest(manifest) != checkpoint["manifest_sha256"]:
        verdict.problems.append(f"{MANIFEST} differs from that of step {verdict.step} in the card")
    wanted = checkpoint.get("files") or _listed(manifest)
    verdict.problems += _differences(wanted, files)


def _differences(wanted: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            yield f"{name} is missing"
        elif name not in wanted:
            yield f"{name} is not in the card"
        elif wanted[name] != found[name]:
            yield f"{name} differs: its sha256 is {found[name]}, in the card {wanted[name]}"


def _is_of_another(
    card: Mapping[str, Any], manifest: Mapping[str, Any] | None, files: Mapping[str, str]
) -> bool:
    """Tells whether neither the manifest of a download nor any of its weights is in a card."""
    known = {value for each in card["checkpoints"] for value in each.get("files", {}).values()}
    known |= {each["manifest_sha256"] for each in card["checkpoints"]}
    own = {value for name, value in files.items() if name.endswith(WEIGHTS)}
    own |= {digest(manifest)} if manifest is not None else set()
    return bool(own) and not own & known


def _checkpoint(
    card: Mapping[str, Any], manifest: Mapping[str, Any] | None, files: Mapping[str, str]
) -> Mapping[str, Any] | None:
    """Returns the checkpoint with a download's manifest, else one of its step, else any.

    Of several it is the one with most of its files. The step of a manifest is its seed's own.
    """
    known: list[Mapping[str, Any]] = card["checkpoints"]
    same, of_step = [], []
    if manifest is not None:
        same = [each for each in known if each["manifest_sha256"] == digest(manifest)]
        of_step = [each for each in known if _own_step(each) == manifest.get("step")]
    named = same or of_step or [each for each in known if "files" in each]
    return max(named, key=lambda each: len(each.get("files", {}).items() & files.items()), default=None)


def _own_step(checkpoint: Mapping[str, Any]) -> Any:
    """Returns the step of a checkpoint's own seed; a job numbers through the steps of all its seeds."""
    return checkpoint.get("measured", {}).get("arm_step", checkpoint["step"])


def _check_beside(document: Mapping[str, Any], found: Mapping[str, Entry], problems: list[str]) -> None:
    if MARKDOWN_FILE in found and found[MARKDOWN_FILE].sha256 != document["markdown_sha256"]:
        problems.append(f"{MARKDOWN_FILE} is not the text that was signed")
    if CARD_FILE in found and _parsed(found[CARD_FILE].text) != document:
        problems.append(f"the {CARD_FILE} in the download is another card")


def _manifest(found: Mapping[str, Entry], problems: list[str]) -> dict[str, Any] | None:
    manifest = _parsed(found[MANIFEST].text) if MANIFEST in found else None
    if isinstance(manifest, dict):
        return manifest
    problems.append(f"{MANIFEST} is {'no JSON object' if MANIFEST in found else 'missing'}")
    return None


def _listed(manifest: Mapping[str, Any] | None) -> dict[str, str]:
    """Returns what a manifest, itself held against the card, says of a checkpoint that is not kept."""
    return {name: facts["sha256"] for name, facts in (manifest or {}).get("files", {}).items()}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuses a name that is there twice: two readers could take two values for it."""
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        return None


def _entries(download: Path, problems: list[str]) -> Iterator[tuple[str, Entry]]:
    """Yields every file below a folder or in a tar; of what is no plain file, or is there twice, tells."""
    if download.is_dir():
        yield from _in_folder(download, problems)
        return
    try:
        with tarfile.open(download, "r:") as tar:
            yield from _in_tar(tar, problems)
    except tarfile.TarError:
        raise Unreadable(f"{download} is neither a folder nor a whole tar") from None


def _in_folder(folder: Path, problems: list[str]) -> Iterator[tuple[str, Entry]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            problems.append(f"{name} is no plain file")
        elif path.is_file():
            with path.open("rb") as file:
                yield name, _entry(name, file)


def _in_tar(tar: tarfile.TarFile, problems: list[str]) -> Iterator[tuple[str, Entry]]:
    seen: set[str] = set()
    for member in tar:
        if member.isdir():
            continue
        file = tar.extractfile(member) if member.isreg() else None
        if file is None or member.name in seen:
            problems.append(f"{member.name} is {'there twice' if file else 'no plain file'}")
            continue
        seen.add(member.name)
        yield member.name, _entry(member.name, file)


def _entry(name: str, file: IO[bytes]) -> Entry:
    found, text = hashlib.sha256(), b""
    while chunk := file.read(CHUNK):
        found.update(chunk)
        if name in BESIDE and len(text) < MOST_SMALL:
            text += chunk
    return Entry(found.hexdigest(), text)
