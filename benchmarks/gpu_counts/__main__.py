"""`python -m benchmarks.gpu_counts`: what a GPU would be asked to do, counted on a device made of CPU memory.

"before" is what the same counts gave before graphs were kept from call to call and a layer was decoded by
kernels of its own; of memory it is what was fixed then. Times are not told: this device has none.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from benchmarks.gpu_counts import memory, passes, sampling
from benchmarks.gpu_counts.passes import Updated
from benchmarks.gpu_counts.sampling import Call, Sampled
from benchmarks.gpu_counts.table import Row, printed


def main() -> None:
    """Counts everything and prints the table."""
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as scratch:
        updated = passes.measure(Path(scratch))
        rows = [*sampling_rows(sampling.measure(Path(scratch))), *pass_rows(updated), *memory_rows()]
    print(printed(rows))
    print("\nWaits of the update:")
    for place, waits in updated.places.items():
        print(f"{waits:>5} {place}")


def sampling_rows(found: Sampled) -> list[Row]:
    """Returns the rows about sampling."""
    return [
        Row(
            "kernels a layer of a decode step, adapter beside, bf16", "69", f"{found.kernels_a_layer:g}", "20"
        ),
        Row(
            "kernels of a step beside its layers, draw and all", "76", f"{found.kernels_beside_layers:g}", ""
        ),
        Row("graphs captured + steps run eagerly, first call", "13 + 13", graphs(found.first), ""),
        Row("the same, next call", "13 + 13", graphs(found.next), "at most 2"),
        Row("host waits a token, drawn (and a call, for prompts)", "5.2", waits(found.next), "1"),
        Row("the same, greedy", "5.5", waits(found.greedy), "1"),
        Row("the same, with stop strings", "6.6", waits(found.stopped), "1"),
        Row("kernels outside the graph a token", "37.7", f"{found.next.kernels_outside:.1f}", ""),
        Row("copies between host and GPU a token", "5.0", f"{found.next.copies:.2f}", ""),
    ]


def graphs(call: Call) -> str:
    """Returns how many graphs a call captured, and how many steps no graph ran."""
    return f"{call.captured} + {call.eager}"


def waits(call: Call) -> str:
    """Returns how often the host waits for a token, and beside that in a whole call."""
    return f"{call.waits:.2f} (and {call.other_waits})"


def pass_rows(found: Updated) -> list[Row]:
    """Returns the rows about an update."""
    return [
        Row("bytes of masks made on the host, an update", "709,888", f"{found.mask_bytes:,}", "0"),
        Row("bytes from the host, an update", "784,656", f"{found.copied_bytes:,}", ""),
        Row("host waits of an update", "16", f"{found.waits:,}", ""),
        Row("of these in its two passes", "", f"{found.waits_of_passes:,}", ""),
    ]


def memory_rows() -> list[Row]:
    """Returns the rows about memory; GB are 10^9 bytes."""
    models = (memory.SMALL, memory.LARGE)
    pieces = [f"{memory.logit_pieces(free)}" for free in memory.FREE]
    rooms = [memory.room(memory.LARGE, card * 10**9) for card in memory.CARDS]
    return [
        Row("pieces of a pass's logits, vocabulary 152,000; 8, 24, 80 GiB free", "74", ", ".join(pieces), ""),
        Row(
            "GB that a pass of 16,384 tokens keeps, LoRA: 0.5B, 7B",
            "32, 148",
            ", ".join(f"{memory.activations(model) / 1e9:.1f}" for model in models),
            "a third less: 21.3, 98.7",
        ),
        Row(
            "GB at the peak of that pass",
            "",
            ", ".join(f"{memory.activation_peak(model) / 1e9:.1f}" for model in models),
            "",
        ),
        Row(
            "rows side by side, 7B; cards of 48, 80, 141 GB",
            "256",
            ", ".join(str(room.rows) for room in rooms),
            "by free memory",
        ),
        Row(
            "GB of their cache and logits",
            "16",
            ", ".join(f"{room.size / 1e9:.1f}" for room in rooms),
            "by free memory",
        ),
    ]


if __name__ == "__main__":
    main()
