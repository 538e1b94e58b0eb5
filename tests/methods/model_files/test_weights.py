"""Safetensors headers that lie, and indices that name what is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.model_files.weights import BITS, WeightsInvalid, index_faults, tensor_names
from tests.model_folders import packed, tensor, whole

LONG = 2**60


def read(folder: Path, content: bytes) -> frozenset[str]:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    return tensor_names(path)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        pytest.param(whole("x"), {"x"}, id="one"),
        pytest.param(
            packed(json.dumps({"x": tensor("I8", [], 0, 1)}).encode() + b"   ", b"1"), {"x"}, id="padded"
        ),
        pytest.param(
            packed({"b": tensor("F16", [1], 2, 4), "a": tensor("BF16", [1], 0, 2)}, bytes(4)),
            {"a", "b"},
            id="order",
        ),
        pytest.param(
            packed({"e": tensor("F32", [0, 7], 0, 0), "x": tensor("U8", [1], 0, 1)}, b"1"),
            {"e", "x"},
            id="empty",
        ),
        pytest.param(packed({"x": tensor("F4", [3, 2], 0, 3)}, bytes(3)), {"x"}, id="half-bytes"),
    ],
)
def test_a_right_file_is_read(tmp_path: Path, content: bytes, names: set[str]) -> None:
    assert read(tmp_path, content) == names


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "cut off", id="nothing"),
        pytest.param(b"1234567", "cut off", id="no-length"),
        pytest.param(
            LONG.to_bytes(8, "little") + b"{}", "claims 1,152,921,504,606,846,976 bytes and 2", id="length"
        ),
        pytest.param(b"\xff" * 8 + b"{}", "cut off", id="largest-length"),
        pytest.param(whole()[:-1], "bytes 8 to 16, but there are 15", id="cut-by-a-byte"),
        pytest.param(whole()[:40], "cut off", id="cut-in-the-header"),
        pytest.param(whole() + b"x", "goes on for 1 bytes", id="data-after-the-end"),
        pytest.param(packed({}), "no tensors", id="no-tensors"),
        pytest.param(packed({"__metadata__": {"format": "pt"}}), "no tensors", id="metadata-alone"),
        pytest.param(packed(b""), "no JSON object", id="empty-header"),
        pytest.param(packed([1]), "no JSON object", id="list"),
        pytest.param(packed(b'{"x": '), "no JSON", id="half-json"),
        pytest.param(packed(b'{"x": "\xff"}'), "no JSON", id="no-utf-8"),
        pytest.param(packed(b'{"x":' + b"[" * 100_000), "no JSON", id="deep"),
        pytest.param(packed(b'{"x": ' + b"9" * 10_000 + b"}"), "no JSON", id="long-number"),
        pytest.param(packed({"__metadata__": {"a": 1}}), "__metadata__", id="metadata-of-numbers"),
        pytest.param(packed({"x": [1]}), "not described by an object", id="no-object"),
        pytest.param(
            packed({"x": {"dtype": "F32", "shape": [1]}}, bytes(4)), "no two places", id="no-offsets"
        ),
        pytest.param(packed({"x": tensor("F33", [1], 0, 4)}, bytes(4)), "unknown type 'F33'", id="type"),
        pytest.param(
            packed({"x": {**tensor("F32", [1], 0, 4), "dtype": [1]}}, bytes(4)), "unknown type", id="odd-type"
        ),
        pytest.param(
            packed({"x": tensor("F32", [2], 0, 4)}, bytes(4)), "has 4 bytes, but F32", id="too-few-bytes"
        ),
        pytest.param(packed({"x": tensor("F32", [1], 0, 8)}, bytes(8)), "needs 4", id="too-many-bytes"),
        pytest.param(
            packed({"x": tensor("U8", [-4], 0, 4)}, bytes(4)), "no list of sizes", id="negative-size"
        ),
        pytest.param(packed({"x": tensor("U8", [True], 0, 1)}, b"1"), "no list of sizes", id="true-for-one"),  # type: ignore[list-item]
        pytest.param(packed({"x": tensor("U8", [1.0], 0, 1)}, b"1"), "no list of sizes", id="fraction"),  # type: ignore[list-item]
        pytest.param(
            packed({"x": tensor("U8", [2**33] * 9, 0, 1)}, b"1"), "more than the file has", id="overflow"
        ),
        pytest.param(packed({"x": tensor("U8", [4], 4, 0)}, bytes(4)), "bytes 4 to 0", id="backwards"),
        pytest.param(
            packed({"x": tensor("U8", [4], -4, 0)}, bytes(4)), "no two places", id="before-the-start"
        ),
        pytest.param(packed({"x": tensor("U8", [4], 2**64, 2**64 + 4)}, bytes(4)), "of data", id="far-out"),
        pytest.param(
            packed({"x": tensor("U8", [8], 0, 8)}, bytes(4)), "there are 4 bytes", id="out-of-range"
        ),
        pytest.param(
            packed({"x": tensor("U8", [3], 0, 3), "y": tensor("U8", [3], 2, 5)}, bytes(5)),
            "'x' and 'y' share bytes",
            id="overlap",
        ),
        pytest.param(
            packed({"x": tensor("U8", [4], 0, 4), "y": tensor("U8", [4], 0, 4)}, bytes(4)),
            "share bytes",
            id="same",
        ),
        pytest.param(
            packed({"x": tensor("U8", [1], 0, 1), "y": tensor("U8", [1], 3, 4)}, bytes(4)),
            "the 2 bytes before tensor 'y'",
            id="gap",
        ),
        pytest.param(
            packed({"x": tensor("U8", [1], 1, 2)}, bytes(2)), "bytes before tensor 'x'", id="gap-first"
        ),
        pytest.param(
            packed(b'{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"x":{"dtype":"U8"}}', b"1"),
            "'x' twice",
            id="twice",
        ),
        pytest.param(
            packed(b'{"x":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', b"1"),
            "'dtype' twice",
            id="twice-within",
        ),
    ],
)
def test_a_file_that_lies_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(WeightsInvalid, match=reason):
        read(tmp_path, content)


@given(place=st.integers(0, 400), byte=st.integers(0, 255))
def test_no_changed_byte_is_accepted_that_the_library_refuses(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int
) -> None:
    """The safetensors library is the oracle: what it cannot read is refused here, and only with our error."""
    content = bytearray(whole("left", "right"))
    content[place % len(content)] = byte
    path = tmp_path_factory.mktemp("changed") / "model.safetensors"
    path.write_bytes(content)
    try:
        tensor_names(path)
    except WeightsInvalid:
        return
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as opened:  # raises where the header lies
        assert len(opened.keys()) == 2


def test_all_types_of_the_library_are_known(tmp_path: Path) -> None:
    for dtype, bits in BITS.items():
        assert read(tmp_path, packed({"x": tensor(dtype, [8], 0, bits)}, bytes(bits))) == {"x"}


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ([], "no weight_map"),
        ({}, "no weight_map"),
        ({"weight_map": {}}, "no weight_map"),
        ({"weight_map": []}, "no weight_map"),
        ({"weight_map": {"a": 1}}, "'1', which is no file of this folder"),
        ({"weight_map": {"a": "/etc/model.safetensors"}}, "no file of this folder"),
        ({"weight_map": {"a": "../model.safetensors"}}, "no file of this folder"),
        ({"weight_map": {"a": ".."}}, "no safetensors"),
        ({"weight_map": {"a": "two.safetensors"}}, "two.safetensors, which is missing"),
        ({"weight_map": {"a": "model.bin"}}, "model.bin, which is no safetensors file"),
        (
            {"weight_map": {"a": "one.safetensors", "z": "one.safetensors"}},
            "'z' in one.safetensors, where it is not",
        ),
    ],
)
def test_an_index_names_what_is_there(tmp_path: Path, index: Any, reason: str) -> None:
    (tmp_path / "one.safetensors").write_bytes(whole("a"))
    (fault,) = index_faults(tmp_path, index, {"one.safetensors": frozenset("a")})
    assert reason in fault


def test_a_right_index_has_no_fault(tmp_path: Path) -> None:
    (tmp_path / "one.safetensors").write_bytes(whole("a"))
    index = {"metadata": {"total_size": 0}, "weight_map": {"a": "one.safetensors"}}
    assert list(index_faults(tmp_path, index, {"one.safetensors": frozenset("a")})) == []
