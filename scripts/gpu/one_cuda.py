"""`python -m scripts.gpu.one_cuda FOLDER VERSION`: leaves of bitsandbytes' wheel the library of one CUDA.

The wheel has a library for each CUDA, ROCm and XPU, which is more than may travel.
"""

from __future__ import annotations

import sys
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile


def main(folder: Path, version: str) -> None:
    """Writes the wheels of bitsandbytes in a folder anew, with the CPU's library and that of one CUDA."""
    kept = (f"libbitsandbytes_cuda{version}.so", "libbitsandbytes_cpu.so")
    for wheel in folder.glob("bitsandbytes-*.whl"):
        small = wheel.with_suffix(".small")
        with ZipFile(wheel) as old, ZipFile(small, "w", ZIP_DEFLATED) as new:
            for name in old.namelist():
                if _stays(name, kept):
                    content = old.read(name)
                    new.writestr(name, _record(content, kept) if name.endswith("/RECORD") else content)
        small.replace(wheel)


def _stays(name: str, kept: tuple[str, ...]) -> bool:
    return not name.endswith(".so") or name.endswith(kept)


def _record(content: bytes, kept: tuple[str, ...]) -> str:
    lines = content.decode().splitlines(keepends=True)
    return "".join(line for line in lines if _stays(line.partition(",")[0], kept))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
