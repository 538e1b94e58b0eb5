"""Whether a run will compile kernels first, which its events then say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from workers.training.passes.first_use import will_compile


def test_a_machine_without_machine_code_compiles_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.training.kernels import machine_code_folder

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert will_compile(torch.device("cpu"))
    assert not will_compile(torch.device("cuda"))
    folder = machine_code_folder()
    assert folder is not None
    (folder / "decode").mkdir()
    (folder / "decode" / "step.nbi").touch()
    assert not will_compile(torch.device("cpu"))
