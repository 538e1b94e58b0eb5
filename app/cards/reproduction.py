"""From a card to the request for the same run, and what two cards say of whether it came out the same."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from app.grading.headers import MASK
from methods.hyperparameters import shown
from methods.train_config import TrainConfig
from methods.tune_config import TuneConfig, read_config

WEIGHTS = ".safetensors"
MOST_TOLD = 10
"""Differences that a comparison names."""


class CannotReproduce(Exception):
    """A job cannot be run again as it was; the message says why and what to do."""


class Outcome(NamedTuple):
    """Whether a second run came out as the first, and why that is said."""

    reproduced: bool
    sentence: str
    details: list[str]


def request_of(
    job: Mapping[str, Any], card: Mapping[str, Any], grader: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Returns the request for the same run, every number of it named.

    `grader` stands in for one whose secrets are not shown. Raises `CannotReproduce`.
    """
    if card["job"]["status"] != "succeeded":
        raise CannotReproduce(f"job {job['id']} is {job['status']}: only one that has succeeded has a result")
    kind = card["job"]["method"]
    block: dict[str, Any] = {"hyperparameters": hyperparameters(card["config"], kind)}
    if kind == "reinforcement":
        shown_block = job["method"]["reinforcement"]
        block["grader"] = grader or _without_secrets(shown_block["grader"])
        if shown_block.get("gold_grader"):
            block["gold_grader"] = _without_secrets(shown_block["gold_grader"])
        if shown_block.get("tools"):
            block["tools"] = _with_open_headers(shown_block["tools"])
        for name in ("environment", "max_episode_steps"):
            if shown_block.get(name):
                block[name] = shown_block[name]
        if shown_block.get("response_format"):
            block["response_format"] = shown_block["response_format"]
    body = {
        "model": card["job"]["model"],
        "training_file": job["training_file"],
        "validation_file": job["validation_file"],
        "canary_file": job.get("canary_file"),
        "suffix": card["job"]["suffix"],
        "seed": job["seed"],
        "resources": card["job"]["resources"],
        "metadata": {"reproduces": job["id"]},
        "method": {"type": kind, kind: block},
    }
    return {name: value for name, value in body.items() if value is not None}


def hyperparameters(config: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """Returns what a request has to say to get that config, whatever "auto" means by now."""
    read = as_run(config)
    values = read.model_dump(mode="json")
    return {name: value for name, value in shown(type(read), kind, values).items() if value is not None}


def as_run(config: Mapping[str, Any]) -> TrainConfig | TuneConfig:
    """Returns a card's config, of any version, as the engine runs it."""
    read = read_config({**config, "model_path": ""})
    if isinstance(read, TrainConfig) and read.eval_temperature is None:  # the rule of 0.1.0
        meant = 0.0 if read.eval_samples == 1 else read.temperature
        return read.model_copy(update={"eval_temperature": meant})
    return read


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> Outcome:
    """Compares two cards: weights bit for bit where the same processor computed both, else rewards."""
    if second["job"]["status"] != "succeeded":
        return Outcome(False, f"Not reproduced: the second job has {second['job']['status']}.", [])
    if others := list(_other_inputs(first, second)):
        return Outcome(False, "Not the same run: what it was made of differs.", others[:MOST_TOLD])
    moved = list(_other_places(first, second))
    if not moved and first["attempts"] and first["attempts"][0]["device"] == "cpu":
        return _by_weights(first, second)
    why = moved or ["a GPU computed it, which adds numbers in no fixed order"]
    found = _by_rewards(first, second)
    return found._replace(details=[f"Weights are not compared bit for bit: {each}." for each in why])


def _other_inputs(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    for param in sorted(first["data"].keys() | second["data"].keys()):
        rows = [card["data"].get(param, {}).get("rows_sha256") for card in (first, second)]
        if rows[0] != rows[1]:
            yield f"the rows of the {param.replace('_', ' ')} differ"
    for part in ("base_model", "grader"):
        hashes = [(card[part] or {}).get("sha256") for card in (first, second)]
        if hashes[0] != hashes[1]:
            yield f"the {part.replace('_', ' ')} differs"
    configs = [as_run(card["config"]).model_dump(mode="json") for card in (first, second)]
    yield from _unequal("config", *configs)


def _other_places(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    """Yields what differs between the places where attempts of the two ran."""
    if not first["attempts"] or not second["attempts"]:
        yield "where it ran was not noted"
        return
    every = [{**each, "attempt": None} for each in (*first["attempts"], *second["attempts"])]
    yield from sorted({text for each in every for text in _unequal("", every[0], each)})


def _unequal(where: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(one.keys() | other.keys()):
        was, now = one.get(name), other.get(name)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            yield from _unequal(f"{where} {name}".strip(), was, now)
        elif was != now:
            yield f"{where} {name}: {was}, then {now}".strip()


def _by_weights(first: Mapping[str, Any], second: Mapping[str, Any]) -> Outcome:
    steps = [card["delivered"]["step"] for card in (first, second)]
    if steps[0] != steps[1]:
        said = (
            f"Not reproduced: the checkpoint of step {steps[0]} was delivered, now that of step {steps[1]}."
        )
        return Outcome(False, said, [])
    before, after = _weights_by_step(first), _weights_by_step(second)
    both = sorted(before.keys() & after.keys())
    others = [
        f"step {step}, {name}: {before[step].get(name)}, then {after[step].get(name)}"
        for step in both
        for name in sorted(before[step].keys() | after[step].keys())
        if before[step].get(name) != after[step].get(name)
    ]
    if others:
        return Outcome(False, "Not reproduced: the weights differ.", others[:MOST_TOLD])
    said = f"Reproduced bit for bit: the weights of step {steps[0]} have the same sha256"
    if beside := [str(step) for step in both if step not in (0, steps[0])]:
        said += f", and so have those of the others that both jobs have kept (of {', '.join(beside)})"
    elif steps[0] == 0:
        said += ". They are the base's, and no trained checkpoint was kept by both jobs to compare"
    own = sorted(before[steps[0]].items())
    return Outcome(True, f"{said}.", [f"{name}: {value}" for name, value in own])


def _weights_by_step(card: Mapping[str, Any]) -> dict[int, dict[str, str]]:
    """Returns the hashes of the weights of each checkpoint whose files a card lists."""
    kept = [each for each in card["checkpoints"] if "files" in each]
    return {each["step"]: _weights(each["files"]) for each in [*kept, card["delivered"]]}


def _weights(files: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in files.items() if name.endswith(WEIGHTS)}


def _by_rewards(first: Mapping[str, Any], second: Mapping[str, Any]) -> Outcome:
    """Compares the delivered checkpoints' rewards over the base: apart they may be what chance makes."""
    before, after = _gain(first["checkpoints"]), _gain(second["checkpoints"])
    if before is None or after is None:
        return Outcome(False, "Not comparable: the reward over the base was not measured.", [])
    (one, reach), (other, its_reach) = before, after
    allowed = math.hypot(reach, its_reach)
    said = f"the reward over the base was {one:+.4f} and is {other:+.4f}, and {allowed:.4f} apart is chance."
    if abs(one - other) <= allowed:
        return Outcome(True, f"Reproduced within the interval: {said}", [])
    return Outcome(False, f"Not reproduced: {said}", [])


def _gain(checkpoints: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """Returns the delivered checkpoint's gain and how far its interval reaches from it."""
    for each in checkpoints:
        low, high = each["gain_interval"]
        if each["delivered"] and each["gain"] is not None and low is not None and high is not None:
            return each["gain"], max(each["gain"] - low, high - each["gain"])
    return None


def _with_open_headers(tools: Any) -> Any:
    """Returns tools as they are shown. Raises `CannotReproduce` if a secret in them is masked."""
    if f'"{MASK}"' in json.dumps(tools):
        raise CannotReproduce(
            "the headers of its tools are secret and not shown: create it from its own request, with its seed"
        )
    return tools


def _without_secrets(grader: Any) -> Any:
    """Returns a grader as it is shown. Raises `CannotReproduce` if a secret in it is masked."""
    if f'"{MASK}"' in json.dumps(grader):
        raise CannotReproduce(
            "a grader's headers are secret and not shown: give the grader with them by --grader FILE"
        )
    return grader
