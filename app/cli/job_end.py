"""What a job has come to: reward before and after, the verdict, and how its model is used."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from app.cli.output import console, when
from app.cli.seeds import print_seeds
from app.cli.taking.lines import checkpoint_of, print_forms
from app.cli.watching import as_sent, print_job
from methods import metrics as names

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.fine_tuning import FineTuningJob

CHECKPOINT = {
    "fine_tuned_model_checkpoint": "Model",
    "step_number": "Step",
    "reward": "Reward",
    "gain": "Over the base",
    "p": "p",
    "loss": "Validation loss",
    "kl": "KL",
    "created_at": "Created",
}
REWARDS = ("valid_reward_mean", "fresh_reward_mean")
"""A checkpoint's rewards on the wire, by which it is judged: of validation rows, else of training rows."""
SNIPPET = """\
from openai import OpenAI

client = OpenAI(base_url="{url}", api_key="{key}")
completion = client.chat.completions.create(
    model="{model}",
    messages=[{{"role": "user", "content": "Hello!"}}],
)
print(completion.choices[0].message.content)"""
KEY_SHOWN = "sk-cherry-..."


EVENTS_LOOKED_AT = 10
"""Of a paused job, whose newest events tell of the pause."""
PAUSED = "The job was paused"
"""How the event begins that tells of a pause."""


class BeforeAfter(NamedTuple):
    """The reward of the base and of what is delivered, by the same rows."""

    before: float
    after: float


def as_row(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a checkpoint's line, by the headings of `CHECKPOINT`."""
    numbers, trust = checkpoint["metrics"], checkpoint.get("trust") or {}
    return {
        **checkpoint,
        "reward": _shown(_reward(numbers)),
        "gain": _shown(numbers.get("advantage_over_base"), "+.3g"),
        "p": _shown(trust.get("p"), ".2g"),
        "loss": _shown(numbers.get("full_valid_loss")),
        "kl": _shown(numbers.get("kl")),
        "created_at": when(checkpoint["created_at"]),
    }


def print_end(client: OpenAI, job: FineTuningJob) -> None:
    """Prints what a job has come to, once it is over."""
    sent = as_sent(job)
    print_job(job)
    if (found := before_after(client, sent)) is not None:
        change = f"{found.before:.3g} before, {found.after:.3g} after ({found.after - found.before:+.3g})"
        console.print(f"{'Reward':16} {change}", markup=False, soft_wrap=True)
    print_seeds(client, sent)
    print_use(client, job)


def print_pause(client: OpenAI, job: FineTuningJob) -> None:
    """Prints since when a paused job waits, and for what, where it has paused by itself."""
    if str(job.status) != "paused":
        return
    newest = client.fine_tuning.jobs.list_events(job.id, limit=EVENTS_LOOKED_AT).data
    for event, before in zip(newest, [*newest[1:], None], strict=True):
        if event.message.startswith(PAUSED):
            why = [before.message] if before is not None and before.level == "warn" else []
            for name, said in zip(("Paused", ""), [event.message, *why], strict=False):
                console.print(f"{name:16} {said}", markup=False, soft_wrap=True)
            return


def print_use(client: OpenAI, job: FineTuningJob) -> None:
    """Prints how the model that a job has delivered is used: here, and at home."""
    if not job.fine_tuned_model:
        return
    from openai import NotFoundError

    console.print("\nUse it:\n", markup=False)
    console.print(how_to_use(client, job.fine_tuned_model), markup=False, soft_wrap=True)
    with suppress(NotFoundError):  # its name was taken away, or its files
        print_forms(checkpoint_of(client, job.fine_tuned_model))


def before_after(client: OpenAI, job: Mapping[str, Any]) -> BeforeAfter | None:
    """Returns the rewards of a reinforcement job that has delivered; None of any other."""
    if not job["fine_tuned_model"] or job["method"]["type"] != "reinforcement":
        return None
    for arm in (job.get("verdict") or {}).get("arms") or ():
        if arm["is_delivered"] and arm["reward"] is not None and arm["gain"] is not None:
            return BeforeAfter(arm["reward"] - arm["gain"], arm["reward"])
    before, after = _base_reward(client, job["id"]), _delivered_reward(client, job)
    return None if before is None or after is None else BeforeAfter(before, after)


def how_to_use(client: OpenAI, model: str) -> str:
    """Returns the lines that ask a model: in Python, and in a terminal."""
    url = str(client.base_url).rstrip("/")
    return f"{SNIPPET.format(url=url, key=KEY_SHOWN, model=model)}\n\ncherry chat {shlex.quote(model)}"


def _base_reward(client: OpenAI, job_id: str) -> float | None:
    """Returns the reward of the untouched base: step 0 is its measurement."""
    query: Any = {"params": {"limit": 1}}
    page: Any = client.get(f"/fine_tuning/jobs/{job_id}/metrics", cast_to=object, options=query)
    first = next(iter(page["data"]), None)
    if first is None or first["step"] != 0:
        return None
    values: Mapping[str, Any] = first["values"]
    found: float | None = values.get(names.VALID_REWARD_MEAN, values.get(names.FRESH_REWARD_MEAN))
    return found


def _delivered_reward(client: OpenAI, job: Mapping[str, Any]) -> float | None:
    for kept in client.fine_tuning.jobs.checkpoints.list(job["id"], limit=100):
        if kept.fine_tuned_model_checkpoint == job["fine_tuned_model"]:
            sent: Any = kept.to_dict(mode="json", warnings=False)
            return _reward(sent["metrics"])
    return None


def _reward(numbers: Mapping[str, Any]) -> float | None:
    return next((numbers[name] for name in REWARDS if numbers.get(name) is not None), None)


def _shown(value: float | None, form: str = ".3g") -> str:
    return "" if value is None else format(value, form)
