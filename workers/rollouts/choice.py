"""Decides who samples a job's rollouts, before it is queued, and opens that in a training process."""

from __future__ import annotations

import re
from functools import partial
from typing import NamedTuple

from app.settings import get_settings
from app.table_settings import VllmEntry, VllmTable, vllm_for
from methods.model_files.precision import QUANTISED
from methods.train_config import TrainConfig
from workers.rollouts.backend import Limits, VllmRollouts
from workers.rollouts.errors import RolloutsRefused, ServerAway
from workers.rollouts.served import find_base
from workers.rollouts.vllm_client import SLEEP_OFF, WEIGHTS_OFF, VllmClient, is_loopback
from workers.training.base.distributed import World
from workers.training.base.recorder import Recorder
from workers.training.model.policy import Policy
from workers.training.sampling.backend import OpenRollouts

NO_SERVER = "this service has no vLLM server for '{model}' (CHERRY_VLLM)"
BUILT_IN = "Rollouts: the built-in sampler, although there is a vLLM server for this model, because {reason}."
CHOSEN = "Rollouts: the vLLM server for this model samples training completions."
IS_AWAY = "Rollouts: the vLLM server for this model does not answer yet ({problem}); training waits for it."


class Chosen(NamedTuple):
    """Is who samples, and what the job says of it: a sentence, and whether it is a warning."""

    config: TrainConfig
    told: str = ""
    is_doubt: bool = False


def choose(config: TrainConfig, servers: VllmTable, *, is_asked: bool) -> Chosen:
    """Returns the config with who samples its rollouts.

    `servers` are the operator's, by base model. `is_asked` says that the job has named one itself. Raises
    `RolloutsRefused` where it has named vLLM, and that cannot be; where it has named nobody, the built-in
    sampler steps in and the job says why.
    """
    if is_asked and config.rollouts == "built_in":
        return Chosen(config)
    entry = vllm_for(servers, config.model)
    if entry is None and not is_asked:
        return Chosen(config)
    reason = NO_SERVER.format(model=config.model) if entry is None else why_not(config, entry)
    if reason and is_asked:
        raise RolloutsRefused(f"vLLM cannot do this job's rollouts, because {reason}.")
    if reason or entry is None:
        return Chosen(config, BUILT_IN.format(reason=reason))
    chosen = config.model_copy(update={"rollouts": "vllm"})
    try:
        find_base(VllmClient(entry), entry, chosen)
    except RolloutsRefused as problem:
        if is_asked:
            raise
        return Chosen(config, BUILT_IN.format(reason=f"it does not fit: {str(problem).rstrip('.')}"))
    except ServerAway as problem:
        return Chosen(chosen, IS_AWAY.format(problem=problem), is_doubt=True)
    return Chosen(chosen, CHOSEN)


def why_not(config: TrainConfig, entry: VllmEntry) -> str:
    """Returns why vLLM cannot sample what this job trains on in the same way, as a clause; "" if it can."""
    reasons = {
        "it trains every weight, and CHERRY_VLLM does not say that its server takes those (whole_weights)": (
            config.adapter == "full" and not entry.whole_weights
        ),
        WEIGHTS_OFF.format(url=entry.url).rstrip("."): (
            config.adapter == "full" and not is_loopback(entry.url)
        ),
        "several seeds that train every weight side by side would need a server each": (
            config.adapter == "full" and config.trains_seeds_beside
        ),
        "its base is quantised here (base_precision), and the server has another one": (
            config.base_precision in QUANTISED
        ),
        "its response_format is held by a grammar of ours, and vLLM's allows other tokens": (
            config.response_format is not None
        ),
        "max_thinking_tokens closes thoughts with tokens that the policy did not choose": (
            config.max_thinking_tokens is not None
        ),
        "async_steps samples beside the update, and the server shares the trainer's GPU (shares_gpu)": (
            entry.shares_gpu and config.async_steps > 0
        ),
        "several seeds train side by side, and the server shares the trainer's GPU (shares_gpu)": (
            entry.shares_gpu and config.trains_seeds_beside
        ),
        SLEEP_OFF.format(url=entry.url).rstrip("."): entry.shares_gpu and not is_loopback(entry.url),
    }
    return next((reason for reason, is_so in reasons.items() if is_so), "")


def rollouts_of(config: TrainConfig, job_id: str) -> OpenRollouts | None:
    """Returns what opens a job's rollouts in any of its processes; None for the built-in sampler."""
    return partial(_open, job_id) if config.rollouts == "vllm" else None


def _open(
    job_id: str, policy: Policy, config: TrainConfig, world: World, recorder: Recorder, arm: str
) -> VllmRollouts:
    """Opens the rollouts of one run of a job, whose arms have names of their own: a control has its seed."""
    settings = get_settings()
    entry = vllm_for(settings.vllm, config.model)
    if entry is None:
        raise RolloutsRefused(
            f"The job's rollouts are to come from vLLM, and {NO_SERVER.format(model=config.model)}: name it"
            " again, or start a job with rollouts built_in."
        )
    away = min(settings.vllm_down_limit, settings.phase_limit / 2).total_seconds()
    name = re.sub(r"[^A-Za-z0-9_-]", "-", "-".join(filter(None, (job_id, arm, f"seed-{config.seed}"))))
    return VllmRollouts(entry, name, policy, config, world, recorder, Limits(away))
