"""`python -m scripts.gpu.checks.versions`: which libraries and which GPU there are."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import torch

NAMES = (
    "torch",
    "triton",
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "numba",
    "llguidance",
    "bitsandbytes",
)


def main() -> None:
    """Prints a line for each library, and one for the GPU."""
    for name in NAMES:
        try:
            print(f"{name} {version(name)}")
        except PackageNotFoundError:
            print(f"{name} is not there")
    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else "no GPU"
    print(f"CUDA {torch.version.cuda}, {gpu}, TF32 {torch.backends.cuda.matmul.allow_tf32}")


if __name__ == "__main__":
    main()
