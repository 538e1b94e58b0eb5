"""Holds the header of a safetensors file against the file, and an index against the files that it names.

The format: eight bytes with the header's length, the header (JSON), and the tensors' bytes without gaps
(https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library."""

BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
"""Bits of one number of each type that the format knows."""

WEIGHTS = ".safetensors"
INDEX = f"{WEIGHTS}.index.json"


class WeightsInvalid(ValueError):
    """Says what a file of weights claims that is not so."""


class Span(NamedTuple):
    """Where the bytes of a tensor are, counted from the end of the header."""

    begin: int
    end: int
    name: str


class StoredTensor(NamedTuple):
    """Says how a tensor is stored: its type, by the format's name, its bytes and its shape."""

    dtype: str
    n_bytes: int
    shape: tuple[int, ...] = ()


def tensor_names(path: Path) -> frozenset[str]:
    """Returns the names of a file's tensors. Raises `WeightsInvalid` if its header lies, or `OSError`."""
    return frozenset(stored_tensors(path))


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """Returns how each tensor of a file is stored, in the order of their bytes. Raises as `tensor_names`."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        left = size - LENGTH_BYTES
        if left < 0 or length > left:
            claimed = f"its header claims {length:,} bytes and {max(left, 0):,} are there"
            raise WeightsInvalid(f"it is cut off or no safetensors file: {claimed}")
        if length > MAX_HEADER_BYTES:
            raise WeightsInvalid(f"its header has {length:,} bytes; at most {MAX_HEADER_BYTES:,} are read")
        entries = _entries(file.read(length))
    spans = sorted(_span(name, entry, left - length) for name, entry in entries.items())
    _check_without_gaps(spans, left - length)
    return {span.name: _stored(entries[span.name], span) for span in spans}


def _stored(entry: Mapping[str, Any], span: Span) -> StoredTensor:
    return StoredTensor(entry["dtype"], span.end - span.begin, tuple(entry["shape"]))


def _entries(header: bytes) -> dict[str, Any]:
    """Returns what a header says of each tensor."""
    if not header.startswith(b"{"):
        raise WeightsInvalid("its header is no JSON object")
    try:
        entries: dict[str, Any] = json.loads(header.decode("utf-8"), object_pairs_hook=_without_repeats)
    except WeightsInvalid:
        raise
    except (ValueError, RecursionError) as problem:
        raise WeightsInvalid(f"its header is no JSON: {str(problem)[:200]}") from None
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise WeightsInvalid("its __metadata__ is no object of texts")
    return entries


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise WeightsInvalid(f"its header names '{twice[:100]}' twice")
    return found


def _span(name: str, entry: Any, data_bytes: int) -> Span:
    """Returns where a tensor lies, once that fits its type, its shape and the file."""
    what = f"tensor '{name[:100]}'"
    dtype, shape, offsets = _declared(what, entry)
    begin, end = offsets
    if not begin <= end <= data_bytes:
        raise WeightsInvalid(
            f"{what} has the bytes {begin} to {end}, but there are {data_bytes:,} bytes of data"
        )
    needed = _bytes(dtype, shape, data_bytes)
    if needed != end - begin:
        asked = "more than the file has" if needed > data_bytes else f"{needed:,}"
        shown = f"{dtype} of shape {shape[:8]}"
        raise WeightsInvalid(f"{what} has {end - begin:,} bytes, but {shown} needs {asked}")
    return Span(begin, end, name)


def _declared(what: str, entry: Any) -> tuple[str, list[int], list[int]]:
    """Returns type, shape and offsets as a header states them, once they are of the right kind."""
    if not isinstance(entry, Mapping):
        raise WeightsInvalid(f"{what} is not described by an object")
    dtype, shape, offsets = (entry.get(field) for field in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in BITS:
        raise WeightsInvalid(f"{what} has the unknown type {str(dtype)[:40]!r}")
    if not _are_counts(shape):
        raise WeightsInvalid(f"{what} has a shape that is no list of sizes: {str(shape)[:60]}")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise WeightsInvalid(f"{what} has offsets that are no two places: {str(offsets)[:60]}")
    return dtype, shape, offsets


def _are_counts(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _bytes(dtype: str, shape: list[int], most: int) -> int:
    """Returns the bytes that a tensor needs, or some number above `most` as soon as it needs more."""
    if 0 in shape:
        return 0
    bits = BITS[dtype]
    for size in shape:
        bits *= size
        if bits > 8 * most:
            return most + 1
    return -(-bits // 8)


def _check_without_gaps(spans: list[Span], data_bytes: int) -> None:
    """Raises `WeightsInvalid` unless every byte belongs to exactly one tensor."""
    if not spans:
        raise WeightsInvalid("it holds no tensors")
    reached, last = 0, ""
    for span in spans:
        if span.begin < reached:
            raise WeightsInvalid(f"the tensors '{last[:100]}' and '{span.name[:100]}' share bytes")
        if span.begin > reached:
            raise WeightsInvalid(
                f"the {span.begin - reached:,} bytes before tensor '{span.name[:100]}' are no tensor's"
            )
        reached, last = span.end, span.name
    if reached < data_bytes:
        raise WeightsInvalid(f"the file goes on for {data_bytes - reached:,} bytes after its last tensor")


def weight_files(folder: Path) -> list[Path]:
    """Returns the files of a model folder that hold its weights, as transformers finds them.

    Other copies of the weights may lie beside them. Raises `OSError`, or `ValueError` for an index that is
    no JSON.
    """
    config = json.loads((folder / "config.json").read_text("utf-8"))
    named = config.get("transformers_weights")
    for name in (named, f"model{WEIGHTS}", f"model{INDEX}"):
        if name is None or not (folder / name).is_file():
            continue
        if not name.endswith(INDEX):
            return [folder / name]
        places = json.loads((folder / name).read_text("utf-8"))["weight_map"]
        return [folder / place for place in sorted(set(places.values()))]
    return []


def index_faults(folder: Path, index: Any, tensors: Mapping[str, frozenset[str]]) -> Iterator[str]:
    """Yields what a parsed index says of the folder's files that is not so.

    `tensors` are the names in each file whose header holds; what is wrong with the others is told elsewhere.
    """
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places:
        yield "has no weight_map of tensors to files"
        return
    odd = [name for name in places.values() if not isinstance(name, str) or Path(name).name != name]
    if odd:
        yield f"names {str(odd[0])[:100]!r}, which is no file of this folder"
        return
    for name in sorted(set(places.values())):
        wanted = {tensor for tensor, place in places.items() if place == name}
        if not name.endswith(WEIGHTS):
            yield f"names {name[:100]}, which is no safetensors file"
        elif not (folder / name).is_file():
            yield f"names {name[:100]}, which is missing"
        elif lacking := sorted(wanted - tensors.get(name, frozenset(wanted))):
            yield f"looks for '{lacking[0][:100]}' in {name}, where it is not ({len(lacking)} tensors in all)"
