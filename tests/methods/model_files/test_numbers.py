"""Numbers that are none are found in each type of weights, in whatever piece of the file they are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from methods.model_files import numbers
from methods.model_files.numbers import LAYOUTS, is_finite, read_numbers

TYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
}


@pytest.mark.parametrize("name", ["BF16", "F16", "F8_E5M2", "F8_E4M3", "F8_E4M3FNUZ"])
def test_numbers_of_up_to_16_bits_are_told_as_torch_tells_them(name: str) -> None:
    dtype = TYPES[name]
    bits = torch.arange(0, 1 << 8 * dtype.itemsize, 1 if dtype.itemsize == 1 else 37, dtype=torch.int32)
    infinities = torch.tensor([0x7F80, 0xFF80, 0x7C00, 0xFC00, 0x7F7F, 0x7BFF], dtype=torch.int32)
    bits = torch.cat([bits, infinities]) if dtype.itemsize == 2 else bits
    raw = bits.to(torch.uint16 if dtype.itemsize == 2 else torch.uint8).view(dtype)
    expected = raw.to(torch.float32).isfinite().tolist()
    each = [int(one).to_bytes(dtype.itemsize, "little") for one in bits]
    assert [is_finite(one, LAYOUTS[name]) for one in each] == expected


@pytest.mark.parametrize("name", ["F32", "F64"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38, -1.5e38, 0.0, 1e-40])
def test_wide_numbers_are_told_by_their_exponent(name: str, value: float) -> None:
    rows = torch.tensor([1.0, 3.2e38, value, -2.0], dtype=TYPES[name])
    raw = rows.view(torch.uint8).numpy().tobytes()
    assert is_finite(raw, LAYOUTS[name]) == bool(rows.isfinite().all())


def test_a_file_is_hashed_and_its_faulty_tensors_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbers, "PIECE", 64)
    tensors = {f"layer.{i}": torch.ones(50 + i, dtype=dtype) for i, dtype in enumerate((*TYPES.values(),))}
    tensors["ids"] = torch.full((9,), -1, dtype=torch.int64)
    tensors["layer.0"][37] = float("nan")
    tensors["layer.2"][-1] = float("inf")
    file = tmp_path / "model.safetensors"
    save_file(tensors, file)
    found = read_numbers(file)
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert sorted(found.not_finite) == ["layer.0", "layer.2"]
