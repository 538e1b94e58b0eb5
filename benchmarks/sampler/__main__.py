"""Measure our sampler beside transformers and llama.cpp; print markdown: `python -m benchmarks.sampler`."""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.engine.report import table
from workers.training.model.base_model import load_base

HERE = Path(__file__).resolve().parent
NANO = HERE.parents[1] / "workers" / "models" / "cherry_nano"
PROMPT_TOKENS, NEW_TOKENS = 12, 100
FIRST_ID, LAST_ID = 5, 400
"""Token ids of which prompts are made: in every vocabulary, and none with a meaning of its own."""
AGREE = 0.02
"""How far llama.cpp's logits may be from ours, relative to the largest. Measured on cherry-nano and
stories260k: at most 0.001, as it keeps keys and values in 16 bits.
"""
WAYS = {
    "ours": ("engine", "groups"),
    "transformers": ("generate", "continuous"),
    "llama.cpp": ("one by one", "batched", "batched, one stream"),
}
N_BATCH = 2048
"""What llama_side.py sets, which runs where nothing of ours can be imported."""
MOST_ONE_BY_ONE = 8
"""Sequences up to which llama.cpp is asked one by one: beyond that it takes as long for each."""


class Model(NamedTuple):
    name: str
    folder: Path
    streams: tuple[int, ...]
    bars: Mapping[int, float]
    """Times llama.cpp, by streams: what was aimed at before the work."""


def models() -> list[Model]:
    """The models that are there; says of others why they are left out."""
    found = [Model("cherry-nano", NANO, (1, 8, 64), {1: 1.0, 8: 1.8, 64: 2.2})]
    for name, variable, streams, bars in (
        ("stories260k", "STORIES260K_MODEL", (1, 8, 64), {1: 1.0, 8: 3.5, 64: 4.5}),
        ("SmolLM2-135M", "SMOLLM2_MODEL", (1, 8), {1: 1.0, 8: 1.5}),
    ):
        folder = os.environ.get(variable)
        if folder and Path(folder).is_dir():
            found.append(Model(name, Path(folder), streams, bars))
        else:
            print(f"{name} is left out: {variable} names no folder.", file=sys.stderr)
    return found


class Side:
    """Is a process that samples when it is asked to."""

    def __init__(self, command: Sequence[str]) -> None:
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        self.about = self._read()

    def ask(self, **asked: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        with self._process:  # closes both ends and waits
            pass

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"The side ended with status {self._process.wait()}.")
        found: dict[str, Any] = json.loads(line)
        return found


Runs = dict[tuple[str, str, int], list[dict[str, Any]]]
"""By side, way and streams."""


def measure(model: Model, llama: str, rounds: int, folder: Path) -> tuple[Runs, dict[str, Any]]:
    """Asks every side in turns; a way that fails is left out from then on, and said so."""
    gguf = folder / f"{model.name}.gguf"
    subprocess.run([llama, str(HERE / "gguf_file.py"), str(model.folder), str(gguf)], check=True)
    sides = {
        "ours": Side([sys.executable, "-m", "benchmarks.sampler.ours_side", str(model.folder)]),
        "transformers": Side([sys.executable, "-m", "benchmarks.sampler.stock_side", str(model.folder)]),
        "llama.cpp": Side([llama, str(HERE / "llama_side.py"), str(gguf)]),
    }
    about = {name: side.about for name, side in sides.items()}
    try:
        check_logits(model, sides["llama.cpp"])
        return run_rounds(model, sides, rounds), about
    finally:
        for side in sides.values():
            side.close()


def run_rounds(model: Model, sides: dict[str, Side], rounds: int) -> Runs:
    """The first round is not counted; the order turns from round to round."""
    rng, found = random.Random(0), Runs()
    for streams in model.streams:
        ways = [
            (side, way)
            for side, all_ways in WAYS.items()
            for way in all_ways
            if way != "one by one" or streams <= MOST_ONE_BY_ONE
        ]
        for number in range(rounds + 1):
            prompts = [[rng.randint(FIRST_ID, LAST_ID) for _ in range(PROMPT_TOKENS)] for _ in range(streams)]
            for side, way in ways[number % len(ways) :] + ways[: number % len(ways)]:
                answer = sides[side].ask(prompts=prompts, tokens=NEW_TOKENS, how=way)
                assert answer["tokens"] == streams * NEW_TOKENS, (side, way, answer["tokens"])
                if number:
                    found.setdefault((side, way, streams), []).append(answer)
        print(f"{model.name}, {streams}: done", file=sys.stderr, flush=True)
    return found


def check_logits(model: Model, llama: Side) -> None:
    """Raises if llama.cpp computes another model than ours."""
    rng = random.Random(1)
    prompt = [rng.randint(FIRST_ID, LAST_ID) for _ in range(40)]
    found = torch.tensor(llama.ask(logits=prompt)["logits"])
    with torch.inference_mode():
        expected = load_base(model.folder).model(torch.tensor([prompt])).logits[0, -1]
    apart = float((found - expected).abs().max() / expected.abs().max())
    if apart > AGREE or int(found.argmax()) != int(expected.argmax()):
        raise RuntimeError(f"llama.cpp's logits of {model.name} are {apart:.3f} away from ours.")


def rate(answers: Sequence[Mapping[str, Any]], clock: str = "cpu") -> float:
    """Tokens a second: the median over rounds."""
    return float(statistics.median(answer["tokens"] / answer[clock] for answer in answers))


def report(model: Model, runs: Runs) -> str:
    """A row for each number of streams: tokens per CPU second, and ours over the others' best."""
    ways = [(side, way) for side in WAYS for way in WAYS[side]]
    rows = []
    for streams in model.streams:
        rates = {way: rate(runs[*way, streams]) for way in ways if (*way, streams) in runs}
        ours = rates["ours", "engine"]
        others = {
            side: max(rates[way] for way in rates if way[0] == side) for side in ("transformers", "llama.cpp")
        }
        engine = runs["ours", "engine", streams]
        rows.append(
            [
                f"{model.name}, {streams}",
                *(f"{rates[way]:,.0f}" if way in rates else "–" for way in ways),
                f"{ours / others['llama.cpp']:.2f} (bar {model.bars[streams]})",
                f"{ours / rates['transformers', 'generate']:.1f}",
                *(f"{1e3 * statistics.median(each[key] for each in engine):.1f}" for key in ("first", "p99")),
            ]
        )
    heads = [f"{side}: {way}" for side, way in ways]
    return table(
        [
            "model, streams",
            *heads,
            "engine / llama.cpp",
            "engine / generate",
            "first token, ms",
            "p99 gap, ms",
        ],
        rows,
    )


def described(about: Mapping[str, Mapping[str, str]], args: argparse.Namespace) -> str:
    """Says what was measured, and how."""
    told = {name: version for side in about.values() for name, version in side.items()}
    system = told.pop("system")
    return (
        f"{', '.join(f'{name} {version}' for name, version in told.items())}. fp32, one thread each;"
        f" llama.cpp: f32 GGUF, keys and values in f16, n_batch {N_BATCH},"
        f" built with {args.flags}; {system}\n"
        f"{PROMPT_TOKENS} prompt tokens, {NEW_TOKENS} new ones, temperature 1. Tokens per CPU second of the"
        f" whole process, medians of {args.rounds} rounds in which the sides take turns; times by the wall."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llama", required=True, help="a Python that has llama-cpp-python and gguf")
    parser.add_argument("--flags", default="not told", help="those of llama.cpp's build, to be printed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="models, by name, with commas")
    args = parser.parse_args()
    chosen = [model for model in models() if not args.only or model.name in args.only.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        for model in chosen:
            runs, about = measure(model, args.llama, args.rounds, Path(folder))
            print(f"\n{described(about, args)}\n\n{report(model, runs)}", flush=True)


if __name__ == "__main__":
    main()
