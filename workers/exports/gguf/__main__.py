"""`python -m workers.exports.gguf CHECKPOINT BASE OUT`: writes a checkpoint's GGUF files to a folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from workers.exports.gguf.refused import GgufRefused
from workers.exports.gguf.write import write_gguf


def main() -> None:
    """Reads the arguments, and says what is written or why nothing is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a folder with model/, and adapter/ for LoRA")
    parser.add_argument("base", type=Path, help="the folder of the model that the job has started from")
    parser.add_argument("out", type=Path, help="where the files go; it is made")
    parser.add_argument("--llama", default="", help="a Python that has llama-cpp-python; this one by default")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    try:
        write_gguf(asked.checkpoint, asked.base, asked.out, lambda *_: None, asked.llama)
    except GgufRefused as refused:
        sys.exit(f"No GGUF file was written. {refused}")
    for file in sorted(asked.out.iterdir()):
        print(file)


if __name__ == "__main__":
    main()
