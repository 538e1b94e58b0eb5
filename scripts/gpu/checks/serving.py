"""`python -m scripts.gpu.checks.serving DEVICE FOLDER`: the sampler's engine answers, without its service."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.workers.serving.engines import model_in, serving

NANO = Path("workers/models/cherry_nano").resolve()
ASKED = 8


def main(device: str, folder: Path) -> int:
    """Prints how long eight requests at once take, twice; returns 1 if greedy answers differ, else 0."""
    model = model_in(NANO, "nano")
    prompts = [[5 + i, 9, 12] for i in range(ASKED)]
    with serving(folder, sampler_device=device) as served:
        alone = served.sample(model, prompts[0], max_tokens=48, temperature=0.0).ids()
        for _ in range(2):
            began = time.perf_counter()
            asked = [served.ask(model, p, max_tokens=48, temperature=0.0)[1] for p in prompts]
            together = [listener.wait().ids() for listener in asked]
            print(f"{ASKED} requests at once: {time.perf_counter() - began:.2f} s")
        drawn = served.sample(model, prompts[0], samples=4, max_tokens=48, temperature=0.8, top_p=0.9)
        print("drawn:", [len(drawn.ids(i)) for i in range(4)], "tokens")
    print("alone and beside others:", "the same" if together[0] == alone else "different")
    return int(device == "cpu" and together[0] != alone)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
