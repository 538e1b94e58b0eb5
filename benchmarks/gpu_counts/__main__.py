"""`python -m benchmarks.gpu_counts`: what a GPU would be asked to do, counted on a device made of CPU memory.

"before" is what the same counts gave before graphs were kept from call to call and a layer was decoded by
kernels of its own. Times are not told: this device has none.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from benchmarks.gpu_counts import passes, sampling
from benchmarks.gpu_counts.sampling import Call, Sampled
from benchmarks.gpu_counts.table import Row, printed


def main() -> None:
    """Counts everything and prints the table."""
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as scratch:
        print(printed([*sampling_rows(sampling.measure(Path(scratch))), *pass_rows(Path(scratch))]))


def sampling_rows(found: Sampled) -> list[Row]:
    """Returns the rows about sampling."""
    return [
        Row(
            "kernels a layer of a decode step, adapter beside, bf16", "69", f"{found.kernels_a_layer:g}", "20"
        ),
        Row("kernels of a decode step beside its layers", "38", f"{found.kernels_beside_layers:g}", ""),
        Row("decode steps eager + captured + replayed, first call", "13 + 13 + 229", graphs(found.first), ""),
        Row("the same, next call", "13 + 13 + 229", graphs(found.next), "at most 2 eager or captured"),
        Row("host waits a token, drawn", "5.2", f"{found.next.waits:.2f}", "1"),
        Row("host waits a token, greedy", "5.5", f"{found.greedy.waits:.2f}", "1"),
        Row("host waits a token, stop strings", "6.6", f"{found.stopped.waits:.2f}", "1"),
        Row("kernels outside the graph a token", "37.7", f"{found.next.kernels_outside:.1f}", ""),
        Row("copies between host and GPU a token", "5.0", f"{found.next.copies:.2f}", ""),
    ]


def graphs(call: Call) -> str:
    """Returns how the steps of a call were run. A step that is captured is then replayed."""
    return f"{call.eager} + {call.captured} + {call.replayed - call.captured}"


def pass_rows(folder: Path) -> list[Row]:
    """Returns the rows about an update."""
    found = passes.measure(folder)
    return [
        Row("bytes of masks made on the host, an update", MASKS_BEFORE, f"{found.mask_bytes:,}", "0"),
        Row("bytes from the host, an update", COPIED_BEFORE, f"{found.copied_bytes:,}", ""),
        Row("host waits of an update", WAITS_BEFORE, f"{found.waits:,}", ""),
    ]


MASKS_BEFORE, COPIED_BEFORE, WAITS_BEFORE = "709,888", "784,656", "16"


if __name__ == "__main__":
    main()
