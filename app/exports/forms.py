"""The forms in which a checkpoint is handed out: which files each has, and what is written anew of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.checkpoints.models import Checkpoint
from app.errors import BadRequest
from app.exports import base as bases
from app.exports import readme
from app.exports.archive import Archive, Member, in_memory, stored
from app.exports.base import IN_DOWNLOAD, MODEL, Base
from app.exports.use import GGUF, Format, Use, short_name
from app.files.integrity import StoredFileDamaged
from app.storage import MANIFEST, Storage
from methods.model_files.adapters import ordered
from methods.model_files.configs import ADAPTER as ADAPTER_CONFIG
from methods.model_files.configs import CONFIG
from methods.model_files.generation import GENERATION_CONFIG, as_trained

ADAPTER = "adapter/"


class ExportRefused(BadRequest):
    """A checkpoint does not have that form. The message says why, and which form to take."""

    code = "export_refused"

    def __init__(self, why: str) -> None:
        super().__init__(why, param="format")


@dataclass(frozen=True)
class Source:
    """A checkpoint, and what else a form of it is made of.

    Attributes:
        card: the job's run card as it is now.
        beside: the files of the card, by name; none before the job is over.
        made: the files that a worker has made, by path, with bytes and sha256; and where they lie.
    """

    checkpoint: Checkpoint
    name: str
    config: Mapping[str, Any]
    base: Base | None
    card: Mapping[str, Any]
    beside: Mapping[str, bytes]
    made: tuple[str, Mapping[str, Any]] | None = None

    @property
    def temperature(self) -> float:
        """Returns the temperature at which training has sampled; what does not sample is as if it were 1."""
        return float(self.config.get("temperature", 1.0))


def refusal(checkpoint: Checkpoint, form: Format, why_no_base: str | None) -> str | None:
    """Returns why a checkpoint does not have a form, as far as its rows tell; None where it does.

    `why_no_base` says why an adapter's base can neither be named nor come along, as `base.why_not` does.
    """
    if form != "adapter":
        return None
    if not _files(checkpoint, ADAPTER):
        return "This checkpoint has no adapter: every weight was trained. format=merged is the whole model."
    if why_no_base is None:
        return None
    return f"An adapter needs its base, and {why_no_base}. format=merged is the whole model."


def use_of(source: Source, form: Format) -> Use:
    """Returns what lines that use a form depend on."""
    base = source.base
    if form != "adapter" or base is None:
        return Use(form, source.name)
    rank = int(source.config.get("lora_rank", 0))
    return Use(
        form,
        source.name,
        base.hub,
        base.revision,
        rank,
        base.hub is not None and base.has_own_template,
        str(source.config.get("base_precision", "auto")),
    )


def archive(source: Source, form: Format, storage: Storage) -> Archive:
    """Returns a form as a tar. Raises `ExportRefused`, `StoredFileDamaged`, or `FileNotFoundError`."""
    why_no_base = bases.why_not(source.base, storage) if form == "adapter" else None
    if (why := refusal(source.checkpoint, form, why_no_base)) is not None:
        raise ExportRefused(why)
    gathered = [
        _summed(each)
        for each in {"adapter": _adapter, "merged": _merged, "gguf": _gguf}[form](source, storage)
    ]
    gathered.append(in_memory(readme.README, _readme(source, form, gathered, storage)))
    gathered += [in_memory(name, data) for name, data in source.beside.items()]
    members = [in_memory(MANIFEST, _manifest(gathered)), *sorted(gathered, key=lambda each: each.name)]
    row = source.checkpoint
    name = f"{short_name(source.name)}-{form}.tar"
    return Archive(name, members, int(row.created_at.timestamp()))


def _adapter(source: Source, storage: Storage) -> list[Member]:
    base = source.base
    assert base is not None
    changed = {
        ADAPTER_CONFIG: lambda said: adapter_config(said, base),
        GENERATION_CONFIG: lambda said: as_trained(said, source.temperature),
    }
    files = _rewritten(source, storage, ADAPTER, changed)
    return files if base.hub is not None else [*files, *bases.members(base, storage)]


def _merged(source: Source, storage: Storage) -> list[Member]:
    return _rewritten(
        source, storage, MODEL, {GENERATION_CONFIG: lambda said: as_trained(said, source.temperature)}
    )


def _gguf(source: Source, storage: Storage) -> list[Member]:
    assert source.made is not None
    prefix, files = source.made
    return [stored(storage, f"{prefix}/{name}", name, facts) for name, facts in files.items()]


def adapter_config(said: Mapping[str, Any], base: Base) -> dict[str, Any]:
    """Returns the config of an adapter with a base that others can find, the same each time."""
    named = base.hub or base.added or IN_DOWNLOAD
    revision = base.revision if base.hub is not None else None
    return {**ordered(said), "base_model_name_or_path": named, "revision": revision}


def _rewritten(
    source: Source,
    storage: Storage,
    prefix: str,
    changed: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]],
) -> list[Member]:
    """Returns the files of a checkpoint below a prefix, some of them written anew from what they say."""
    members = []
    for name, facts in _files(source.checkpoint, prefix).items():
        key, own = f"{source.checkpoint.storage_key}/{name}", name.removeprefix(prefix)
        if own in changed:
            said = _read(storage, key, own, facts["sha256"])
            members.append(in_memory(own, _written(changed[own](said))))
        else:
            members.append(stored(storage, key, own, facts))
    return members


def _read(storage: Storage, key: str, name: str, sha256: str) -> dict[str, Any]:
    data = storage.read_bytes(key)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise StoredFileDamaged(f"{name} has changed since it was written: its sha256 is another")
    content: dict[str, Any] = json.loads(data)
    return content


def _files(checkpoint: Checkpoint, prefix: str) -> dict[str, Any]:
    files: Mapping[str, Any] = checkpoint.manifest["files"]
    return {name: facts for name, facts in sorted(files.items()) if name.startswith(prefix)}


def _readme(source: Source, form: Format, members: Sequence[Member], storage: Storage) -> bytes:
    gguf = next((each.name for each in members if each.name.startswith("model-")), GGUF)
    told = readme.Told(
        name=source.name,
        use=use_of(source, form),
        card=source.card,
        checkpoint=source.checkpoint,
        base=source.base,
        dtype=_dtype(source, form, gguf, storage),
        gguf=gguf,
    )
    return readme.readme(told).encode()


def _dtype(source: Source, form: Format, gguf: str, storage: Storage) -> str | None:
    if form == "adapter":
        return "float32"
    if form == "gguf":
        return gguf.removeprefix("model-").removesuffix(".gguf")
    config = json.loads(storage.read_bytes(f"{source.checkpoint.storage_key}/{MODEL}{CONFIG}"))
    said = config.get("dtype") or config.get("torch_dtype")
    return said if isinstance(said, str) else None


def _manifest(members: Sequence[Member]) -> bytes:
    """Returns the sums of all other files."""
    files = {each.name: {"bytes": each.size, "sha256": each.sha256} for each in members}
    return _written({"files": dict(sorted(files.items()))})


def _summed(member: Member) -> Member:
    """Returns a member with its sum. A file of the base whose sum nobody has noted is read for it."""
    if member.sha256 is not None:
        return member
    digest = hashlib.sha256()
    for chunk in member.open(0):
        digest.update(chunk)
    return replace(member, sha256=digest.hexdigest())


def _written(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"
