"""The table of a job's seeds: how each has done, by the verdict, or before there is one by the metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from app.cli.output import console, print_table
from methods import metrics as names
from methods.halving import arm_seeds

if TYPE_CHECKING:
    from openai import OpenAI

HEADINGS = {
    "seed": "Seed",
    "reward": "Best reward",
    "gain": "Over the base",
    "p": "p",
    "kl": "KL",
    "steps": "Steps",
    "status": "Status",
}
PAGE = 1000
"""Steps of metrics in one answer, the most that the service gives."""


def print_seeds(client: OpenAI, job: Mapping[str, Any], page: int = PAGE) -> None:
    """Prints the table of a job that was asked for several seeds; nothing of any other.

    So many steps of its metrics are asked for at a time.
    """
    n_seeds = _hyperparameters(job).get("n_seeds")
    if not isinstance(n_seeds, int) or n_seeds < 2:
        return
    arms = (job.get("verdict") or {}).get("arms")
    if arms:
        rows = [_judged(arm) for arm in arms]
    else:
        rows = _so_far(arm_seeds(job["seed"], n_seeds), _steps(client, job, page))
    console.print()
    print_table(HEADINGS, rows, empty="")


def _hyperparameters(job: Mapping[str, Any]) -> Mapping[str, Any]:
    block = ((job.get("method") or {}).get("reinforcement")) or {}
    return block.get("hyperparameters") or {}


def _judged(arm: Mapping[str, Any]) -> dict[str, str]:
    """Returns a seed's line by the verdict, whose bounds hold over the checkpoints of all seeds."""
    gain, low, high = (arm[name] for name in ("gain", "low", "high"))
    over = "" if gain is None else f"{gain:+.3g} ({low:+.3g} to {high:+.3g})"
    status = arm["ended"].replace("_", " ")
    if (rung := arm.get("rung")) is not None:
        status += f", out after halving {rung}" if arm["ended"] != "halved" else f" at rung {rung}"
    return {
        "seed": str(arm["seed"]),
        "reward": _number(arm.get("reward")),
        "gain": over,
        "p": _number(arm["p"], ".2g"),
        "kl": _number(arm["kl"]),
        "steps": str(arm["steps"]),
        "status": f"{status}, delivered" if arm["is_delivered"] else status,
    }


def _steps(client: OpenAI, job: Mapping[str, Any], limit: int) -> Iterator[Mapping[str, Any]]:
    """Yields the metrics of each step so far, but those of controls."""
    after: dict[str, str] = {}
    while True:
        query: Any = {"limit": limit, **after}
        page: Any = client.get(
            f"/fine_tuning/jobs/{job['id']}/metrics", cast_to=object, options={"params": query}
        )
        for step in page["data"]:
            if names.ARM_SEED in step["values"] and not step["values"].get(names.ARM_IS_CONTROL):
                yield step["values"]
        if not page["has_more"]:
            return
        after = {"after": page["data"][-1]["id"]}


def _so_far(seeds: list[int], steps: Iterator[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Returns the seeds' lines by what was measured; the best evaluation is that of the largest gain."""
    last: dict[int, Mapping[str, Any]] = {}
    best: dict[int, Mapping[str, Any]] = {}
    now = None
    for values in steps:
        now = int(values[names.ARM_SEED])
        last[now] = values
        gain = values.get(names.OVER_BASE_MEAN)
        if gain is not None and (now not in best or gain > best[now][names.OVER_BASE_MEAN]):
            best[now] = values
    return [_measured(seed, last.get(seed), best.get(seed, {}), is_last=seed == now) for seed in seeds]


def _measured(
    seed: int, last: Mapping[str, Any] | None, best: Mapping[str, Any], *, is_last: bool
) -> dict[str, str]:
    reward = best.get(names.VALID_REWARD_MEAN, best.get(names.FRESH_REWARD_MEAN))
    return {
        "seed": str(seed),
        "reward": _number(reward),
        "gain": _number(best.get(names.OVER_BASE_MEAN), "+.3g"),
        "p": "",
        "kl": _number(best.get(names.KL_PROBE_MEAN)),
        "steps": str(int(last[names.ARM_STEP])) if last else "0",
        "status": "not begun" if last is None else "trained last" if is_last else "so far",
    }


def _number(value: float | None, form: str = ".3g") -> str:
    return "" if value is None else format(value, form)
