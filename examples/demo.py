"""Train the built-in model for real, as a user would, and show before and after.

Starts a whole service in a folder of its own, then talks to it with nothing but the official client:
uploads two files, creates a reinforcement job, follows its events, reads its grades, downloads its model.
`make demo` runs this; `make demo KEEP=1` leaves the service up.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from openai import OpenAI
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

HERE = Path(__file__).parent
PEOPLE = HERE / "people"
HYPERPARAMETERS: dict[str, Any] = {
    "n_epochs": 4,
    "learning_rate_multiplier": 2,
    "max_completion_tokens": 96,
}
TERMINAL = ("succeeded", "failed", "cancelled")
QUESTION = (
    "Turn this bio into JSON: university, programming_languages, city, state.\n"
    "Ada Nakamura grew up in Norman, Oklahoma and now lives in Bangor, Maine. She graduated from Drexel"
    " University. She writes C# and Bash."
)
"""What both models are asked at the end. No row has it."""
BAR = 30
"""Characters of a full bar, where each step has a line."""
SNIPPET = """\
import time
from openai import OpenAI

client = OpenAI(base_url="{url}/v1", api_key="{key}")
while (job := client.fine_tuning.jobs.retrieve("{job}")).status not in ("succeeded", "failed", "cancelled"):
    time.sleep(2)
if job.status != "succeeded":
    raise SystemExit(job.error)
print(job.verdict["sentence"])
for model in (job.model, job.fine_tuned_model):
    asked = [{{"role": "user", "content": {question!r}}}]
    chat = client.chat.completions.create(model=model, messages=asked, temperature=0)
    print(model, chat.choices[0].message.content, sep="\\n")
"""

console = Console(soft_wrap=True, highlight=False)


def main() -> int:
    args = parse_args()
    started = time.monotonic()
    with service(args.data, keep=args.keep) as up:
        client = OpenAI(base_url=up["url"] + "/v1", api_key=up["api_key"])
        job = create_job(client)
        job = follow(client, job.id)
        if job.status != "succeeded":
            console.print(f"[red]The job {job.status}: {job.error.message if job.error else ''}[/red]")
            return 1
        before, after = validation_grades(client, job)
        show_scores(before, after)
        show_answers(before, after)
        draw_rewards(client, job.id, args.data / "reward.png")
        folder = download(client, job, args.data / "model")
        chat(client, job, QUESTION)
        console.print(f"\nDone in {time.monotonic() - started:.0f} s.")
        show_next_steps(up, args.data, job, QUESTION, folder, keep=args.keep)
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="leave the service up at the end")
    parser.add_argument(
        "--data", type=Path, default=Path(".demo"), help="folder for all its state (default .demo)"
    )
    return parser.parse_args()


@contextmanager
def service(data: Path, *, keep: bool) -> Iterator[dict[str, Any]]:
    """A running Cherry: its URL and key. Stopped at the end, whatever happens, unless `keep`."""
    console.print(f"Starting the service in {data}: database, broker, API and workers (some seconds) ...")
    data.mkdir(parents=True, exist_ok=True)
    command = [str(Path(sys.executable).with_name("cherry")), "up", "--json", "--data", str(data)]
    with (data / "up.log").open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=keep
        )
    leave_running = False
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"The service did not start:\n{(data / 'up.log').read_text()[-2000:]}")
        up = json.loads(line)
        if said := (data / "up.log").read_text().strip():
            console.print(said, style="dim")  # such as: port 8000 is taken
        console.print(f"Up at [bold]{up['url']}[/bold]")
        yield up
        leave_running = keep
    finally:
        if not leave_running:
            process.send_signal(signal.SIGTERM)
            process.wait()


def create_job(client: OpenAI) -> Any:
    """Upload both files and start a reinforcement job on the built-in model."""
    files = [
        client.files.create(file=(PEOPLE / name).open("rb"), purpose="fine-tune")
        for name in ("train.jsonl", "valid.jsonl")
    ]
    job = client.fine_tuning.jobs.create(
        model="cherry-nano",
        training_file=files[0].id,
        validation_file=files[1].id,
        suffix="people",
        seed=7,
        method={  # type: ignore[arg-type]  # the client's types know OpenAI's graders alone
            "type": "reinforcement",
            "reinforcement": {
                "grader": json.loads((PEOPLE / "grader.json").read_text()),
                "hyperparameters": HYPERPARAMETERS,
            },
        },
    )
    console.print(f"Created [bold]{job.id}[/bold]: 48 training rows, 24 validation rows, grader `fields`")
    return job


def follow(client: OpenAI, job_id: str, *, draws_steps: bool = False) -> Any:
    """Show progress until the job ends: a line for each validation, or for each step where `draws_steps`."""
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[numbers]}"), console=console
    )
    bar = progress.add_task("waiting", total=None, numbers="")
    seen, latest = 0, {"valid": float("nan"), "kl": 0.0}
    with Live(progress, console=console, refresh_per_second=4):
        while True:
            job = client.fine_tuning.jobs.retrieve(job_id)
            events = list(reversed(client.fine_tuning.jobs.list_events(job_id, limit=1000).data))
            for event in events[seen:]:
                data: Any = event.data or {}
                if event.type != "metrics":
                    console.print(f"  [dim]{event.message}[/dim]")
                    continue
                latest["valid"] = data.get("full_valid_mean_reward", latest["valid"])
                latest["kl"] = data.get("kl", data.get("kl_batch", latest["kl"]))
                if draws_steps:
                    console.print(step_line(data), markup=False)
                elif "full_valid_mean_reward" in data:
                    console.print(f"  {event.message}")
                progress.update(
                    bar,
                    description=f"step {data['step']}/{data['total_steps']}",
                    total=data["total_steps"],
                    completed=data["step"],
                    numbers=numbers(data, latest, job.estimated_finish),
                )
            seen = len(events)
            if job.status in TERMINAL:
                break
            time.sleep(0.5)
    console.print()
    return job


def step_line(data: dict[str, Any]) -> str:
    """A step as a line of the curve: its training reward as a bar, and the validation if it had one."""
    reward = data.get("train_mean_reward")
    bar = "" if reward is None else "█" * round(BAR * max(0.0, min(1.0, reward)))
    train = "  -  " if reward is None else f"{reward:5.2f}"
    valid = data.get("full_valid_mean_reward")
    told = "" if valid is None else f" validation {valid:.2f}"
    return f"  step {data['step']:3}/{data['total_steps']}  reward {train} {bar:{BAR}}{told}".rstrip()


def numbers(data: dict[str, Any], latest: dict[str, float], finish: int | None) -> str:
    """The figures beside the bar."""
    left = f"  {max(0, finish - int(time.time()))} s left" if finish else ""
    train = data.get("train_mean_reward", float("nan"))
    return f"reward train {train:.2f} valid {latest['valid']:.2f}  KL {latest['kl']:.3f}{left}"


def validation_grades(client: OpenAI, job: Any) -> tuple[list[Any], list[Any]]:
    """The graded validation answers of the base model and of the delivered checkpoint."""
    return grades(client, job.id, step=0), grades(client, job.id, step=delivered(client, job).step_number)


def delivered(client: OpenAI, job: Any) -> Any:
    """The checkpoint that the tuned model is: the one that bears its name."""
    checkpoints = client.fine_tuning.jobs.checkpoints.list(job.id, limit=100).data
    return next(c for c in checkpoints if c.fine_tuned_model_checkpoint == job.fine_tuned_model)


def grades(client: OpenAI, job_id: str, step: int) -> list[Any]:
    page: Any = client.get(
        f"/fine_tuning/jobs/{job_id}/rollouts?split=valid&step={step}&limit=1000", cast_to=object
    )
    return list(page["data"])


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def show_scores(before: list[Any], after: list[Any]) -> None:
    """Mean validation reward and per-field scores, base and tuned."""
    table = Table(title=f"{len({row['row'] for row in before})} validation rows, unseen in training")
    for column in ("", "base", "tuned"):
        table.add_column(column, justify="left" if not column else "right")
    fields = sorted({name for row in before + after for name in row["parts"] if "." not in name})
    for name in ["mean reward", *fields]:
        table.add_row(name, *(f"{mean([score(row, name) for row in rows]):.3f}" for rows in (before, after)))
    console.print(table)


def score(row: dict[str, Any], name: str) -> float:
    """An answer that did not parse scores 0 in every field."""
    value = row["reward"] if name == "mean reward" else row["parts"].get(name)
    return float(value or 0.0)


def show_answers(before: list[Any], after: list[Any], file: Path = PEOPLE / "valid.jsonl") -> None:
    """The three rows of the validation file that gained most."""
    tuned = {row["row"]: row for row in after}
    gained = sorted(
        {row["row"]: row for row in before}.values(),
        key=lambda row: score(row, "mean reward") - score(tuned[row["row"]], "mean reward"),
    )
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in gained[:3]:
        other = tuned[row["row"]]
        console.print(f"\n[bold]{rows[row['row']]['messages'][-1]['content']}[/bold]", highlight=False)
        console.print(f"  before ({score(row, 'mean reward'):.2f})  {row['text']}", markup=False)
        console.print(f"  after  ({score(other, 'mean reward'):.2f})  {other['text']}", markup=False)


def draw_rewards(client: OpenAI, job_id: str, path: Path) -> None:
    """The learning curve as a picture."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    events = client.fine_tuning.jobs.list_events(job_id, limit=1000).data
    points: list[Any] = sorted((e.data for e in events if e.type == "metrics"), key=lambda d: d["step"])
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for key, label in (("train_mean_reward", "training samples"), ("full_valid_mean_reward", "validation")):
        drawn = [(p["step"], p[key]) for p in points if key in p]
        axes.plot(*zip(*drawn, strict=True), marker="o" if label == "validation" else None, label=label)
    axes.set(xlabel="step", ylabel="mean reward", ylim=(0, 1.02), title="cherry-nano on people")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    console.print(f"\nLearning curve: {path}")


def download(client: OpenAI, job: Any, folder: Path) -> Path:
    """Fetch the delivered checkpoint as a tar and unpack it."""
    archive = folder.with_suffix(".tar")
    path = f"/fine_tuning/jobs/{job.id}/checkpoints/{delivered(client, job).id}/download"
    response = client.get(path, cast_to=httpx2.Response)
    archive.write_bytes(response.content)
    with tarfile.open(archive) as tar:
        for member in tar:
            unpack(tar, member, folder)
    archive.unlink()
    console.print(f"Model files: {folder}")
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            console.print(f"  {file.relative_to(folder)}  {file.stat().st_size:,} bytes", highlight=False)
    return folder


def unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """One plain file, never outside `folder`. (`extractall`'s filter needs Python 3.11.4.)"""
    target = (folder / member.name).resolve()
    content = tar.extractfile(member)
    if content is None or not target.is_relative_to(folder.resolve()):
        raise SystemExit(f"The download holds something that is no plain file: {member.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("wb") as out:
        shutil.copyfileobj(content, out)


def chat(client: OpenAI, job: Any, question: str) -> None:
    """Ask the base and the tuned model over the API, which serves both."""
    console.print("\nBoth models are served by the API. Asked with the official client:")
    console.print(f"\n[bold]{question}[/bold]")
    for name, model in (("before", job.model), ("after", job.fine_tuned_model)):
        completion = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": question}],
            temperature=0,
            max_completion_tokens=HYPERPARAMETERS["max_completion_tokens"],
        )
        console.print(f"  {name:6}  {completion.choices[0].message.content}", markup=False)


def show_next_steps(
    up: dict[str, Any], data: Path, job: Any, question: str, folder: Path | None = None, *, keep: bool
) -> None:
    """How to go on from here: `folder` is where the tuned model was unpacked."""
    cherry = Path(sys.executable).with_name("cherry")
    if keep:
        console.print(f"\nThe service stays up. Stop it with: kill {up['pid']}")
    else:
        console.print(
            f"\nStopping what was started. To have it back, jobs and all: {cherry} up --data {data}"
        )
    console.print(
        f"""
  URL        {up["url"]}/v1
  key        {up["api_key"]}
  dashboard  {up["dashboard"]}

  {cherry} jobs show {job.id} --data {data}
  {cherry} chat {job.fine_tuned_model} --against {job.model} --data {data}

In Python: wait for the job, print what it came to, ask both models.
""",
        markup=False,
    )
    console.print(
        SNIPPET.format(url=up["url"], key=up["api_key"], job=job.id, question=question), markup=False
    )
    if folder is not None:
        console.print(
            f"""The tuned model loads anywhere:

  from transformers import AutoModelForCausalLM, AutoTokenizer
  model = AutoModelForCausalLM.from_pretrained("{folder}/model")
  tokenizer = AutoTokenizer.from_pretrained("{folder}/model")""",
            markup=False,
        )


if __name__ == "__main__":
    raise SystemExit(main())
