"""Makes what a results file lacks, or prints its table: `python -m benchmarks.long_runs run | report`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.long_runs.comparison import text_of
from benchmarks.long_runs.plan import pairs
from benchmarks.stability.chunks import commit_of, make_chunk
from benchmarks.stability.models import ROOT, ModelMissing, source_of


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("run", "report"))
    parser.add_argument("--results", type=Path, default=ROOT / ".stability" / "long.jsonl")
    parser.add_argument(
        "--chunk-seconds", type=float, default=float("inf"), help="start no job after so long"
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    import torch

    from benchmarks.long_runs.jobs import Makes

    os.environ["TQDM_DISABLE"] = "1"
    torch.set_num_threads(1)
    runs = [each for pair in pairs() for each in pair]
    try:
        for model in {each.task.model for each in runs}:
            source_of(model)
        with tempfile.TemporaryDirectory(prefix="long-runs-") as folder:
            facts = {"build": commit_of(ROOT)}
            left = make_chunk(
                runs, args.results, Makes(Path(folder)).make, facts=facts, seconds=args.chunk_seconds
            )
    except ModelMissing as missing:
        sys.exit(str(missing))
    except BlockingIOError:
        sys.exit(f"Another chunk is writing into {args.results}.")
    print(f"{left} jobs are left.", file=sys.stderr)
    return 0


def main() -> int:
    args = parse()
    if args.command == "run":
        return run(args)
    print(text_of(args.results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
