"""Makes runs in chunks, or the report of what there is: `python -m benchmarks.stability run | report`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.stability.chunks import Worker, commit_of, make_chunk
from benchmarks.stability.models import ROOT, ModelMissing, source_of
from benchmarks.stability.plan import PARTS, runs_of

RESULTS = ROOT / ".stability"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results files")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="make what the results lack of the plan")
    run.add_argument("--only", choices=PARTS, action="append", help="one part of the plan; may be repeated")
    run.add_argument("--chunk-seconds", type=float, default=float("inf"), help="start no run after so long")
    run.add_argument("--build", type=Path, default=ROOT, help="checkout, with .venv, whose engine runs")
    run.add_argument("--label", default="", help="name of the results of another build")
    run.add_argument("--seeds", type=_numbers, help="only these seeds of each part, such as 0,4")
    commands.add_parser("report", help="print the tables and the bars as Markdown")
    return parser.parse_args(argv)


def _numbers(text: str) -> set[int]:
    return {int(number) for number in text.split(",")}


def run(args: argparse.Namespace) -> int:
    build = args.build.resolve()
    if (build != ROOT) != bool(args.label):
        sys.exit("--build and --label go together: the results of another build have a name of their own.")
    left, worker, end = 0, Worker(build), time.monotonic() + args.chunk_seconds
    try:
        for only in args.only or ("ours", "coin", "trl"):
            runs = [each for each in runs_of(only) if args.seeds is None or each.seed in args.seeds]
            for model in {each.task.model for each in runs}:
                source_of(model)
            path, facts = args.results / f"{args.label or only}.jsonl", {"build": commit_of(build)}
            left += make_chunk(runs, path, worker.make, facts=facts, seconds=end - time.monotonic())
    except ModelMissing as missing:
        sys.exit(str(missing))
    except BlockingIOError:
        sys.exit(f"Another chunk is writing into {path}.")
    finally:
        worker.close()
    print(f"{left} runs are left.", file=sys.stderr)
    return 0


def report(args: argparse.Namespace) -> int:
    from benchmarks.stability.report import text_of

    print(text_of(args.results))
    return 0


def main() -> int:
    args = parse()
    return run(args) if args.command == "run" else report(args)


if __name__ == "__main__":
    sys.exit(main())
